/* SHA-256 by libmd, see file.h. */
#include "sdlora/file.h"

#include <sha2.h>

static void finish(char hex[65], SHA2_CTX *ctx)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum[SHA256_DIGEST_LENGTH];

    SHA256Final(sum, ctx);
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    hex[64] = '\0';
}

void file_sha256_spans(char hex[65], const FileSpan *span, int n)
{
    SHA2_CTX ctx;
    int i;

    SHA256Init(&ctx);
    for (i = 0; i < n; i++)
        if (span[i].size > 0)
            SHA256Update(&ctx, span[i].data, span[i].size);
    finish(hex, &ctx);
}

int file_sha256_path(char hex[65], const char *path, Err *e)
{
    uint8_t piece[8192];
    FileIn *f = file_open(path, e);
    size_t got = sizeof piece;
    SHA2_CTX ctx;
    int rc = f ? 0 : -1;

    hex[0] = '\0';
    SHA256Init(&ctx);
    while (!rc && got == sizeof piece) {
        rc = file_read(piece, &got, f, sizeof piece, e);
        if (!rc)
            SHA256Update(&ctx, piece, got);
    }
    if (!rc)
        finish(hex, &ctx);
    file_close(f);
    return rc;
}

void file_sha256(char hex[65], const void *data, size_t n)
{
    FileSpan all = {data, n};
    file_sha256_spans(hex, &all, 1);
}
