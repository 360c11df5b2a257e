/* SHA-256 by libmd, see file.h. */
#include "sdlora/file.h"

#include <sha2.h>

void file_sha256_spans(char hex[65], const FileSpan *span, int n)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum[SHA256_DIGEST_LENGTH];
    SHA2_CTX ctx;
    int i;

    SHA256Init(&ctx);
    for (i = 0; i < n; i++)
        if (span[i].size > 0)
            SHA256Update(&ctx, span[i].data, span[i].size);
    SHA256Final(sum, &ctx);
    for (i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    hex[64] = '\0';
}

void file_sha256(char hex[65], const void *data, size_t n)
{
    FileSpan all = {data, n};
    file_sha256_spans(hex, &all, 1);
}
