// The header compiles alone as C++17, and its functions link from there.
#include <iokernel.h>

extern "C" uint32_t abi_version_from_cpp(void);

uint32_t abi_version_from_cpp(void)
{
    return iok_abi_version();
}
