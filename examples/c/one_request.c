/* One request, its reply, and what became of it:
 *
 *     one_request redis://127.0.0.1:6379 SET greeting hello
 *     one_request redis://127.0.0.1:6379 GET greeting
 */
#include "program.h"

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s URL WORD...\n", argv[0]);
        return 2;
    }
    session session = session_open();
    uint32_t endpoint = open_endpoint(session.channel, argv[1]);

    submit_words(session.channel, IOK_OP_REQUEST, endpoint, 1, argv + 2, argc - 2);
    const iok_completion *reply = next_completion(session.channel);
    show(reply);
    printf("(%.1f us on the wire)\n", (double)(reply->first_byte_ns - reply->sent_ns) / 1000);
    done_with(session.channel, reply);

    session_close(&session);
    return 0;
}
