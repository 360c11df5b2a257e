/* image_png_texts: files made chunk by chunk here, as the specification has it, and each way to break one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "io_util.h"

enum { CAP = 1 << 12 };

typedef struct File {
    uint8_t bytes[CAP];
    size_t n;
} File;

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void chunk(File *f, const char *type, const void *data, size_t n)
{
    uint8_t *p = f->bytes + f->n;
    assert_true(f->n + 12 + n <= CAP);
    put_u32(p, (uint32_t)n);
    memcpy(p + 4, type, 4);
    if (n)
        memcpy(p + 8, data, n);
    put_u32(p + 8 + n, (uint32_t)crc32(0, p + 4, (uInt)(4 + n)));
    f->n += 12 + n;
}

static void begin(File *f, uint32_t w, uint32_t h)
{
    uint8_t head[13] = {0};
    memcpy(f->bytes, "\x89PNG\r\n\x1a\n", 8);
    f->n = 8;
    put_u32(head, w);
    put_u32(head + 4, h);
    head[8] = 8;
    chunk(f, "IHDR", head, sizeof head);
}

static int read_texts(PngTexts *t, const uint8_t *bytes, size_t n, Err *e)
{
    FileIn *in = file_open_bytes(bytes, n, "a.png", e);
    int rc;
    assert_non_null(in);
    e->code = ERR_NONE;
    e->msg[0] = '\0';
    rc = image_png_texts(t, in, e);
    file_close(in);
    return rc;
}

/* With what between header and end; an error says `text`, and leaves nothing. */
static void refused(const File *f, const char *text)
{
    PngTexts t;
    Err e = {0};
    assert_int_equal(read_texts(&t, f->bytes, f->n, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "'a.png'");
    assert_says(e, text);
    assert_null(t.item);
}

static void refused_chunk(const char *type, const void *data, size_t n, const char *text)
{
    static File f;
    begin(&f, 3, 5);
    chunk(&f, type, data, n);
    chunk(&f, "IEND", NULL, 0);
    refused(&f, text);
}

static void test_texts(void **state)
{
    static File f;
    PngTexts t;
    Err e = {0};
    char key[81];
    (void)state;
    memset(key, 'k', sizeof key);
    key[79] = '\0';
    begin(&f, 70000, 5);
    chunk(&f, "tEXt", "seed\0007", 6);
    chunk(&f, "tEXt", "caf\xe9\0na\xefve", 10); /* Latin-1 */
    chunk(&f, "IDAT", "any", 3);
    chunk(&f, "iTXt", "T\0\0\0de\0Titel\0gr\xc3\xbcn", 18);
    chunk(&f, "iTXt", "packed\0\1\0\0\0x", 12);
    chunk(&f, "zTXt", "packed\0\0x", 9);
    chunk(&f, "tEXt", key, 80); /* an empty value */
    chunk(&f, "tEXt", "seed\0008", 6);
    chunk(&f, "IEND", NULL, 0);
    memcpy(f.bytes + f.n, "what follows", 12); /* is no part of it */
    assert_int_equal(read_texts(&t, f.bytes, f.n + 12, &e), 0);
    assert_true(t.w == 70000 && t.h == 5);
    assert_int_equal(t.n, 5);
    assert_string_equal(t.item[0], "seed");
    assert_string_equal(t.item[1], "7");
    assert_string_equal(t.item[2], "caf\xc3\xa9");
    assert_string_equal(t.item[3], "na\xc3\xafve");
    assert_string_equal(t.item[4], "T");
    assert_string_equal(t.item[5], "gr\xc3\xbcn");
    assert_string_equal(t.item[6], key);
    assert_string_equal(t.item[7], "");
    assert_string_equal(t.item[9], "8");
    assert_null(t.item[10]);
    assert_string_equal(image_png_text(&t, "seed"), "7");
    assert_null(image_png_text(&t, "packed"));
    image_png_texts_free(&t);
}

static void test_round_trip(void **state)
{
    static const char *text[2 * 100 + 1]; /* more than there is room for at first */
    char keys[100][8];
    uint8_t px[6] = {0};
    Image im = {3, 2, 1, px};
    PngTexts t;
    TmpDir dir;
    Err e = {0};
    const char *path;
    FileIn *in;
    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(keys[i], sizeof keys[i], "key%d", i);
        text[2 * i] = keys[i];
        text[2 * i + 1] = i % 3 ? "gr\xc3\xbc\xc3\x9f" : "plain";
    }
    tmpdir_make(&dir);
    path = tmpdir_name(&dir, "a.png");
    assert_int_equal(image_write_png(path, &im, text, &e), 0);
    in = file_open(path, &e);
    assert_int_equal(image_png_texts(&t, in, &e), 0);
    file_close(in);
    assert_true(t.w == 3 && t.h == 2 && t.n == 100);
    for (int i = 0; i < 200; i++)
        assert_string_equal(t.item[i], text[i]);
    image_png_texts_free(&t);
    tmpdir_remove(&dir);
}

static void test_bad_texts(void **state)
{
    char key[90];
    (void)state;
    memset(key, 'k', sizeof key);
    key[80] = '\0';
    refused_chunk("tEXt", "", 0, "'tEXt' has no key");
    refused_chunk("tEXt", "seed", 4, "'tEXt' has no key");
    refused_chunk("tEXt", "\0value", 6, "'tEXt' has no key");
    refused_chunk("tEXt", key, 84, "'tEXt' has no key");
    refused_chunk("tEXt", "a\0b\0c", 5, "'tEXt' has a NUL");
    refused_chunk("iTXt", "a\0", 2, "'iTXt' ends before");
    refused_chunk("iTXt", "a\0\0", 3, "'iTXt' ends before");
    refused_chunk("iTXt", "a\0\0\0", 4, "'iTXt' ends before");
    refused_chunk("iTXt", "a\0\0\0en", 6, "'iTXt' ends before");
    refused_chunk("iTXt", "a\0\0\0en\0", 7, "'iTXt' ends before");
    refused_chunk("iTXt", "a\0\0\0en\0t", 8, "'iTXt' ends before");
    refused_chunk("iTXt", "a\0\0\0\0\0b\0c", 9, "'iTXt' has a NUL");
    refused_chunk("I2AT", "", 0, "four letters");
    refused_chunk("\x1b[2J", "", 0, "\\x1b[2J");
}

static void test_bad_headers(void **state)
{
    static File f;
    (void)state;
    f.n = 0;
    refused(&f, "is not a PNG file");
    begin(&f, 1, 1);
    f.bytes[1] = 'p';
    refused(&f, "is not a PNG file");
    begin(&f, 0, 1);
    chunk(&f, "IEND", NULL, 0);
    refused(&f, "impossible size");
    begin(&f, 1, 0x80000000u);
    chunk(&f, "IEND", NULL, 0);
    refused(&f, "impossible size");
    begin(&f, 1, 1);
    f.n = 8;
    chunk(&f, "IEND", NULL, 0);
    refused(&f, "where the header should");
    f.n = 8;
    chunk(&f, "IHDR", "123456789012", 12);
    refused(&f, "where the header should");
}

/* Every byte that is missing, and every bit of every chunk, is noticed. */
static void test_damage(void **state)
{
    static File f;
    PngTexts t;
    Err e = {0};
    (void)state;
    begin(&f, 3, 5);
    chunk(&f, "tEXt", "seed\0007", 6);
    chunk(&f, "IDAT", "any", 3);
    chunk(&f, "IEND", NULL, 0);
    for (size_t cut = 0; cut + 12 < f.n; cut++) {
        assert_int_equal(read_texts(&t, f.bytes, cut, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
    }
    for (size_t bit = 0; bit < 8 * (f.n - 12); bit++) { /* the last chunk says only that it is the last */
        f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (!read_texts(&t, f.bytes, f.n, &e))
            fail_msg("bit %zu does not count", bit);
        f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(read_texts(&t, f.bytes, f.n, &e), 0);
    image_png_texts_free(&t);
}

/* A length is a claim: nothing is taken for it that the file does not have, and texts have a bound. */
static void test_lengths(void **state)
{
    static const uint32_t lengths[] = {7, 100, 0x1000000, 0x7fffffff, 0x80000000, 0xffffffff};
    static const char *const types[] = {"tEXt", "iTXt", "IDAT"};
    static File f;
    Err e = {0};
    PngTexts t;
    size_t n = PNG_TEXTS_MAX - 13; /* what the header leaves */
    uint8_t *large;
    (void)state;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 6; i++) {
            begin(&f, 1, 1);
            chunk(&f, types[k], "seed\0007", 6);
            put_u32(f.bytes + 8 + 12 + 13, lengths[i]);
            assert_int_equal(read_texts(&t, f.bytes, f.n, &e), -1);
            assert_int_equal(e.code, ERR_INPUT);
            assert_null(t.item);
        }
    assert_says(e, "longer than PNG allows");
    for (int more = 0; more < 2; more++) {
        begin(&f, 1, 1);
        large = mem_alloc(f.n + 12 + n + 1 + 12, 1, "a file", &e);
        memcpy(large, f.bytes, f.n);
        put_u32(large + f.n, (uint32_t)n + (uint32_t)more);
        memcpy(large + f.n + 4, "tEXta", 6);
        memset(large + f.n + 10, 'v', n + (size_t)more - 2);
        put_u32(large + f.n + 8 + n + more, (uint32_t)crc32(0, large + f.n + 4, (uInt)(4 + n) + (uInt)more));
        f.n += 12 + n + (size_t)more;
        memcpy(large + f.n, "\0\0\0\0IEND\xae\x42\x60\x82", 12);
        assert_int_equal(read_texts(&t, large, f.n + 12, &e), -more);
        if (more)
            assert_says(e, "longer than texts are read");
        image_png_texts_free(&t);
        mem_free(large);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),       cmocka_unit_test(test_round_trip), cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_damage),     cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
