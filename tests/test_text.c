/* Text for people: every character, and everything that is none. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sdlora/text.h"

/* c in so many bytes, more than it needs too. */
static void encode(char out[5], uint32_t c, int n)
{
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    out[n] = '\0';
}

static int length(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

static void escaped(const char *s)
{
    char wanted[64] = "", got[64];
    for (size_t i = 0; s[i]; i++)
        snprintf(wanted + 4 * i, 5, "\\x%02x", (unsigned char)s[i]);
    assert_string_equal(text_safe(got, sizeof got, s), wanted);
    assert_int_equal(text_columns(s), 4 * (int)strlen(s));
}

static void test_every_character(void **state)
{
    (void)state;
    for (uint32_t c = 1; c <= 0x1fffff; c++) {
        char s[5], got[32];
        bool control = c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 || c == 0x2029 ||
                       (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x61c || c == 0x200e ||
                       c == 0x200f;
        encode(s, c, length(c));
        if (control || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
            escaped(s);
        else if (strcmp(text_safe(got, sizeof got, s), s) != 0 || text_unit(s).bytes != length(c))
            fail_msg("U+%04x is not shown as it is", c);
    }
}

static void test_no_characters(void **state)
{
    char s[5];
    (void)state;
    for (int c = 0x80; c < 0x100; c++) { /* a byte alone, and before what does not go on */
        escaped((char[]){(char)c, '\0'});
        char got[32], wanted[32];
        snprintf(wanted, sizeof wanted, "\\x%02xa", c);
        assert_string_equal(text_safe(got, sizeof got, (char[]){(char)c, 'a', '\0'}), wanted);
    }
    for (uint32_t c = 0; c < 0x10000; c++) /* overlong forms */
        for (int n = length(c) + 1; n <= 4; n++) {
            encode(s, c, n);
            escaped(s);
        }
    for (uint32_t c = 0x80; c <= 0x10ffff; c += 7) /* cut */
        for (int n = 1; n < length(c); n++) {
            encode(s, c, length(c));
            s[n] = '\0';
            escaped(s);
        }
    escaped("\xfe\xff\xf8\x88\x80\x80\x80");
}

static void test_cut_and_columns(void **state)
{
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\x1b\xf0\x9f\x98\x80z"; /* 1, 2, 3, 1, 4 and 1 bytes */
    static const int ends[] = {0, 1, 3, 6, 10, 14, 15};
    char out[32];
    (void)state;
    for (size_t cap = 1; cap < sizeof out; cap++) {
        int fits = 0;
        for (int i = 0; i < 7; i++)
            fits = ends[i] < (int)cap ? ends[i] : fits;
        memset(out, 'x', sizeof out);
        assert_int_equal(strlen(text_safe(out, cap, text)), fits);
        assert_int_equal(out[cap], 'x');
    }
    assert_int_equal(text_columns("a\xc3\xa9\xe2\x82\xac"), 3);
    assert_int_equal(text_columns("\xe4\xb8\xad\xe6\x96\x87"), 4); /* Chinese characters are two columns wide */
    assert_int_equal(text_columns("e\xcc\x81"), 1);                /* and an accent above takes none */
    assert_int_equal(text_columns(""), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_no_characters),
        cmocka_unit_test(test_cut_and_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
