/* The records to the byte, as every binding reads them. The header comes first: it must compile alone. */
#include <iokernel.h>

#include <stddef.h>

#define AT(type, field, offset, bytes)                                                     \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved");      \
    _Static_assert(sizeof(((type *)0)->field) == (bytes), #type "." #field " has changed")

AT(iok_submission, size, 0, 4);
AT(iok_submission, op, 4, 2);
AT(iok_submission, flags, 6, 2);
AT(iok_submission, endpoint, 8, 4);
AT(iok_submission, timeout_ms, 12, 4);
AT(iok_submission, tag, 16, 8);
AT(iok_submission, key, 24, 8);
AT(iok_submission, bytes_total, 32, 4);
AT(iok_submission, marker, 36, 4);
_Static_assert(sizeof(iok_submission) == IOK_SUBMISSION_BYTES, "the payload follows the head");

AT(iok_completion, size, 0, 4);
AT(iok_completion, kind, 4, 2);
AT(iok_completion, flags, 6, 2);
AT(iok_completion, endpoint, 8, 4);
AT(iok_completion, status, 12, 4);
AT(iok_completion, tag, 16, 8);
AT(iok_completion, peer, 24, 4);
AT(iok_completion, fate, 28, 1);
AT(iok_completion, encoding, 29, 1);
AT(iok_completion, reserved, 30, 2);
AT(iok_completion, bytes_total, 32, 4);
AT(iok_completion, reserved2, 36, 4);
AT(iok_completion, queued_ns, 40, 8);
AT(iok_completion, sent_ns, 48, 8);
AT(iok_completion, first_byte_ns, 56, 8);
AT(iok_completion, done_ns, 64, 8);
_Static_assert(sizeof(iok_completion) == IOK_COMPLETION_BYTES, "the payload follows the head");

_Static_assert(IOK_TRACE_BYTES == 32 && IOK_FLAG_TRACE == 32, "a trace context precedes the payload");

uint32_t abi_version_from_cpp(void);

int main(void)
{
    return iok_abi_version() == IOK_ABI_VERSION && abi_version_from_cpp() == IOK_ABI_VERSION ? 0 : 1;
}
