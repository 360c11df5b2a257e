/* safetensors.h: tests/badfiles with their verdicts, hand-made headers, every truncation of a file, number
 * formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/safetensors.h"
#include "io_util.h"

/* Reads whatever can be read of an accepted file. */
static void read_all(const StFile *f)
{
    Err e = {0};
    int i;
    for (i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        int64_t *out = mem_alloc(t->numel, sizeof *out, "test", &e);
        assert_ptr_equal(st_find(f, t->name), t);
        st_read_f32((float *)out, f, t, &e);
        st_read_i64(out, f, t, &e);
        mem_free(out);
    }
}

static int check_verdict(char *line)
{
    char *file = strtok(line, "\t"), *reference = strtok(NULL, "\t"), *verdict = strtok(NULL, "\t\n"), path[256];
    Err e = {0};
    StFile *f;
    int wanted;
    assert_non_null(verdict);
    assert_non_null(reference);
    wanted = strcmp(verdict, "accept") == 0;
    snprintf(path, sizeof path, "tests/badfiles/%s", file);
    assert_true(file_exists(path));
    f = st_open(path, &e);
    if (f)
        read_all(f);
    st_close(f);
    if ((f != NULL) != wanted) {
        print_error("%s: must %s; %s\n", file, verdict, e.msg);
        return 1;
    }
    if (!f) {
        assert_int_equal(e.code, ERR_INPUT);
        assert_says(e, path);
    }
    return 0;
}

static void test_badfiles(void **state)
{
    Err e = {0};
    char *data, *line, *next;
    size_t n;
    int files = 0, wrong = 0;
    (void)state;
    if (file_load(&data, &n, "tests/badfiles/verdicts.tsv", 1 << 20, &e) != 0)
        fail_msg("%s", e.msg);
    for (line = data; *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = '\0';
        if (*line == '#' || !*line)
            continue;
        wrong += check_verdict(line);
        files++;
    }
    mem_free(data);
    assert_int_equal(wrong, 0);
    assert_int_equal(files, 64);
}

/* A file with this header and data (NULL: zeros), in a block of exactly its size. */
static StFile *parse_data(unsigned char **block, const char *header, size_t n, const void *data, size_t bytes, Err *e)
{
    size_t size = 8 + n + bytes, i;
    *block = malloc(size);
    assert_non_null(*block);
    memset(*block, 0, size);
    for (i = 0; i < 8; i++)
        (*block)[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(*block + 8, header, n);
    if (data)
        memcpy(*block + 8 + n, data, bytes);
    return st_parse(*block, size, "here", e);
}

static StFile *parse(unsigned char **block, const char *header, size_t n, size_t zeros, Err *e)
{
    return parse_data(block, header, n, NULL, zeros, e);
}

static void assert_accepts(const char *header, size_t zeros)
{
    unsigned char *block;
    Err e = {0};
    StFile *f = parse(&block, header, strlen(header), zeros, &e);
    if (!f)
        fail_msg("%s: %s", header, e.msg);
    read_all(f);
    st_close(f);
    free(block);
}

static void assert_rejects_n(const char *header, size_t n, size_t zeros, const char *why)
{
    unsigned char *block;
    Err e = {0};
    StFile *f = parse(&block, header, n, zeros, &e);
    if (f)
        fail_msg("accepted: %s", header);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "'here'");
    assert_says(e, why);
    free(block);
}

static void assert_rejects(const char *header, size_t zeros, const char *why)
{
    assert_rejects_n(header, strlen(header), zeros, why);
}

#define T(fields)     "{\"t\":{" fields "}}"
#define F32(shape, o) "\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" o

static void test_accepted_headers(void **state)
{
    (void)state;
    assert_accepts("{}", 0);
    assert_accepts("{} \t\r\n", 0);
    assert_accepts("{\"__metadata__\":{}}", 0);
    assert_accepts(T(F32("[2,1]", "[0,8]")), 8);
    assert_accepts(T(F32("[]", "[0,4]")), 4);
    assert_accepts(T(F32("[0,3]", "[0,0]")), 0);
    assert_accepts(T(F32("[1,1,1,1,1,1,1,1]", "[0,4]")), 4);
    assert_accepts("{\"a\":{" F32("[0]", "[4,4]") "},\"b\":{" F32("[1]", "[0,4]") "},\"c\":{" F32("[0]", "[0,0]") "}}",
                   4);
    /* unknown fields, with numbers of every kind */
    assert_accepts(T(F32("[1]", "[0,4]") ",\"x\":[-1,-9223372036854775809,18446744073709551615,1e5,-2.5,true,null,{}]"),
                   4);
    assert_accepts(T(F32("[1]", "[0,4]") ",\"x\":\"[[\\\"-5 \\u0000 18446744073709551615\""), 4);
    assert_accepts("{\"__metadata__\":{\"\":\"x\"},\"gr\xc3\xbc\xc3\x9f\":{" F32("[1]", "[0,4]") "}}", 4);
    assert_accepts("{\"t\":{\"dtype\":\"F4\",\"shape\":[2,3],\"data_offsets\":[0,3]}}", 3);
    assert_accepts("{\"t\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3);
}

static void test_rejected_headers(void **state)
{
    (void)state;
    assert_rejects("", 8, "does not begin with '{'");
    assert_rejects("{", 0, "not valid JSON");
    assert_rejects("{}{}", 0, "not valid JSON");
    assert_rejects_n("{}\0", 3, 0, "not valid JSON");
    assert_rejects("{\"t\":+1}", 0, "not valid JSON");
    assert_rejects("{\"t\":NaN}", 0, "not valid JSON");
    assert_rejects("{\"t\":1}", 0, "not an object");
    assert_rejects("{\"__metadata__\":7}", 0, "'__metadata__' is not an object");
    assert_rejects("{\"__metadata__\":{\"a\":null}}", 0, "metadata value 'a' is not a string");
    assert_rejects("{\"__metadata__\":{\"a\":\"x\\u0000\"}}", 0, "without NUL");
    assert_rejects("{\"a\\u0000b\":{" F32("[1]", "[0,4]") "}}", 4, "NUL");
    assert_rejects("{\"\":{" F32("[1]", "[0,4]") "}}", 4, "empty name");
    assert_rejects(T("\"dtype\":\"F32\"," F32("[1]", "[0,4]")), 4, "duplicate");
    assert_rejects(T(F32("[1]", "[0,4]") ",\"shape\":[1]"), 4, "duplicate");
    assert_rejects("{\"t\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
                   "'dtype' is missing or unknown");
    assert_rejects("{\"t\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'dtype' is missing or unknown");
    assert_rejects("{\"t\":{\"dtype\":\"F32\\u0000\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'dtype'");
    assert_rejects("{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "'shape' is not a list");
    assert_rejects(T(F32("[-1]", "[0,4]")), 4, "whole numbers");
    assert_rejects(T(F32("[1,-0]", "[0,0]")), 0, "whole numbers");
    assert_rejects(T(F32("[true]", "[0,4]")), 4, "whole numbers");
    assert_rejects(T(F32("[18446744073709551616]", "[0,4]")), 4, "not valid JSON");
    assert_rejects(T(F32("[4611686018427387905,4]", "[0,16]")), 16, "overflows");
    assert_rejects(T(F32("[1,1,1,1,1,1,1,1,1]", "[0,4]")), 4, "more than 8 dimensions");
    assert_rejects(T(F32("[1]", "[0,4,4]")), 4, "two whole numbers");
    assert_rejects(T(F32("[1]", "[-4,0]")), 4, "two whole numbers");
    assert_rejects(T(F32("[1]", "[18446744073709551612,0]")), 4, "18446744073709551612 to 0");
    assert_rejects(T(F32("[1]", "[0,8]")), 8, "0 to 8, but its type and shape make 4 bytes");
    assert_rejects("{\"t\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1, "whole bytes");
    assert_rejects(T(F32("[1]", "[4,8]")), 8, "begins at data byte 4, but the one before it ends at 0: a hole");
    assert_rejects("{\"a\":{" F32("[1]", "[0,4]") "},\"b\":{" F32("[1]", "[2,6]") "}}", 6, "they overlap");
    assert_rejects("{\"a\":{" F32("[1]", "[0,4]") "},\"b\":{" F32("[1]", "[0,4]") "}}", 4, "they overlap");
    assert_rejects(T(F32("[2]", "[0,8]")), 7, "is cut short: tensor 't' ends at data byte 8, but only 7 bytes");
    assert_rejects(T(F32("[2]", "[0,8]")), 9, "1 stray bytes");
    assert_rejects("{}", 1, "1 stray bytes");
    /* a name cannot put escape sequences on a terminal */
    assert_rejects("{\"\\u001b[31m\":{" F32("[2]", "[0,8]") "}}", 7, "'\\x1b[31m'");
    assert_rejects("PK\3\4..........", 0, "'here'");
}

static void test_first_bytes(void **state)
{
    static const unsigned char zip[] = "PK\3\4 and so on", huge[8] = {1, 225, 245, 5};
    Err e = {0};
    (void)state;
    assert_null(st_parse(zip, sizeof zip, "m.pt", &e));
    assert_says(e, "zip archive");
    assert_null(st_parse(huge, 8, "here", &e));
    assert_says(e, "100000001");
    assert_null(st_parse("", 0, "here", &e));
    assert_says(e, "0 bytes");
    assert_null(st_open("no/such.safetensors", &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "cannot open 'no/such.safetensors'");
}

/* The reference's recursion limit lets 127 levels pass. */
static void test_depth(void **state)
{
    char header[600];
    int depth, i;
    (void)state;
    for (depth = 125; depth <= 126; depth++) {
        char *p = header + sprintf(header, "{\"t\":{%s,\"x\":", F32("[1]", "[0,4]"));
        for (i = 0; i < depth; i++)
            *p++ = '[';
        for (i = 0; i < depth; i++)
            *p++ = ']';
        strcpy(p, "}}");
        if (depth == 125)
            assert_accepts(header, 4);
        else
            assert_rejects(header, 4, "128 levels");
    }
}

static void test_too_many_values(void **state)
{
    size_t n = 3000000, i;
    char *header = malloc(n + 1);
    (void)state;
    memcpy(header, "{\"t\":[", 6);
    for (i = 6; i < n; i++)
        header[i] = ",0"[i % 2];
    header[n] = '\0';
    header[6] = '0';
    assert_rejects(header, 0, "not valid JSON"); /* 1.5 million values: JSON decides */
    for (i = 6; i < n; i++)
        header[i] = '[';
    assert_rejects(header, 0, "levels deep");
    for (i = 6; i < n; i++)
        header[i] = "[]"[i % 2];
    assert_rejects(header, 0, "not valid JSON");
    for (i = 6; i < n; i++)
        header[i] = ',';
    assert_rejects(header, 0, "values");
    free(header);
}

/* Integers up to 2^64-1 come through exactly, though the JSON library's end at 2^63-1. */
static void test_large_integers(void **state)
{
    static const char header[] = T(F32("[0,9223372036854775807,0]", "[0,0]"));
    static const char header2[] = "{\"t\":{" F32("[0,9223372036854775808,18446744073709551615]", "[0,0]") "}}";
    unsigned char *block;
    Err e = {0};
    StFile *f = parse(&block, header, sizeof header - 1, 0, &e);
    (void)state;
    assert_non_null(f);
    assert_true(st_at(f, 0)->d[1] == (uint64_t)INT64_MAX);
    st_close(f);
    free(block);
    f = parse(&block, header2, sizeof header2 - 1, 0, &e);
    assert_non_null(f);
    assert_int_equal(st_at(f, 0)->nd, 3);
    assert_true(st_at(f, 0)->d[1] == (uint64_t)1 << 63);
    assert_true(st_at(f, 0)->d[2] == UINT64_MAX);
    assert_int_equal(st_at(f, 0)->numel, 0);
    st_close(f);
    free(block);
}

/* The reference's own example file, its every truncation and every one-bit error. */
static void test_damage(void **state)
{
    static const char good[] = "@\0\0\0\0\0\0\0{\"test\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}"
                               "    \1\0\0\0\2\0\0\0\3\0\0\0\xff\xff\xff\xff";
    size_t size = sizeof good - 1, n, bit;
    int64_t v[4];
    Err e = {0};
    StFile *f = st_parse(good, size, "here", &e);
    (void)state;
    assert_non_null(f);
    assert_int_equal(st_count(f), 1);
    assert_int_equal(st_read_i64(v, f, st_find(f, "test"), &e), 0);
    assert_int_equal(v[0], 1);
    assert_int_equal(v[3], -1);
    st_close(f);
    for (n = 0; n < size; n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, good, n);
        assert_null(st_parse(copy, n, "here", &e));
        free(copy);
    }
    for (bit = 0; bit < 8 * size; bit++) {
        char *copy = malloc(size);
        memcpy(copy, good, size);
        copy[bit / 8] = (char)(copy[bit / 8] ^ 1 << bit % 8);
        f = st_parse(copy, size, "here", &e);
        if (f)
            read_all(f);
        st_close(f);
        free(copy);
    }
}

static void read_one(float *out, DType type, int n, const void *bytes)
{
    char header[200];
    unsigned char *block;
    size_t size = (size_t)n * (size_t)dtype_bits(type) / 8;
    unsigned char data[128] = {0};
    Err e = {0};
    StFile *f;
    /* one byte in front, so that the data is not aligned */
    int len = sprintf(header,
                      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                      "\"t\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[1,%zu]}}",
                      dtype_name(type), n, 1 + size);
    assert_true(size < sizeof data);
    memcpy(data + 1, bytes, size);
    f = parse_data(&block, header, (size_t)len, data, 1 + size, &e);
    if (!f)
        fail_msg("%s", e.msg);
    if (st_read_f32(out, f, st_find(f, "t"), &e) != 0)
        fail_msg("%s", e.msg);
    st_close(f);
    free(block);
}

static void test_float_types(void **state)
{
    static const float f32[] = {1.5f, -0.0f, 3.4e38f};
    static const double f64[] = {1.5, -1e300, 0.1};
    static const uint16_t f16[] = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x83ff,
                                   0x8000, 0x7c00, 0xfc00, 0x7e00, 0x3555};
    static const double want16[] = {1,    -2,       65504,     0x1p-14, 0x1p-24,   -1023 * 0x1p-24,
                                    -0.0, INFINITY, -INFINITY, NAN,     0x1.554p-2};
    static const uint16_t bf16[] = {0x3f80, 0xc000, 0x7f80, 0x4049};
    float out[11];
    int i;
    (void)state;
    read_one(out, DT_F32, 3, f32);
    assert_memory_equal(out, f32, sizeof f32);
    read_one(out, DT_F64, 3, f64);
    assert_true(out[0] == 1.5f && isinf(out[1]) && out[1] < 0 && out[2] == 0.1f);
    read_one(out, DT_F16, 11, f16);
    for (i = 0; i < 11; i++)
        if (isnan(want16[i]))
            assert_true(isnan(out[i]));
        else
            assert_true((double)out[i] == want16[i] && !signbit(out[i]) == !signbit(want16[i]));
    read_one(out, DT_BF16, 4, bf16);
    assert_true(out[0] == 1.0f && out[1] == -2.0f && isinf(out[2]) && out[3] == 3.140625f);
}

static void test_integer_types(void **state)
{
    static const struct {
        DType type;
        const char *bytes;
        int64_t want[2];
    } cases[] = {
        {DT_I8, "\xff\x7f", {-1, 127}},
        {DT_U8, "\xff\x7f", {255, 127}},
        {DT_I16, "\xfe\xff\0\x80", {-2, -32768}},
        {DT_U16, "\xfe\xff\0\x80", {65534, 32768}},
        {DT_I32, "\xfd\xff\xff\xff\xff\xff\xff\x7f", {-3, 2147483647}},
        {DT_U32, "\xfd\xff\xff\xff\xff\xff\xff\x7f", {4294967293, 2147483647}},
        {DT_I64, "\xfc\xff\xff\xff\xff\xff\xff\xff\1\2\0\0\0\0\0\0", {-4, 513}},
    };
    static const DType others[] = {DT_U64, DT_F32, DT_BOOL, DT_F8_E4M3};
    char header[100];
    unsigned char *block;
    int64_t out[2];
    float real[2];
    Err e = {0};
    size_t i;
    (void)state;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        int size = 2 * dtype_bits(cases[i].type) / 8;
        int n = sprintf(header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%d]}}",
                        dtype_name(cases[i].type), size);
        StFile *f = parse_data(&block, header, (size_t)n, cases[i].bytes, (size_t)size, &e);
        assert_non_null(f);
        assert_int_equal(st_read_i64(out, f, st_at(f, 0), &e), 0);
        assert_true(out[0] == cases[i].want[0] && out[1] == cases[i].want[1]);
        assert_int_equal(st_read_f32(real, f, st_at(f, 0), &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_says(e, "'here': tensor 't' is ");
        assert_says(e, dtype_name(cases[i].type));
        st_close(f);
        free(block);
    }
    for (i = 0; i < sizeof others / sizeof *others; i++) {
        int size = dtype_bits(others[i]) / 8;
        int n = sprintf(header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%d]}}",
                        dtype_name(others[i]), size);
        StFile *f = parse(&block, header, (size_t)n, (size_t)size, &e);
        assert_non_null(f);
        assert_int_equal(st_read_i64(out, f, st_at(f, 0), &e), -1);
        st_close(f);
        free(block);
    }
}

static void test_lookup(void **state)
{
    static const char header[] =
        "{\"b\":{" F32("[1]", "[8,12]") "},\"__metadata__\":{\"k\":\"v\",\"a\":\"\"},\"c\":{" F32(
            "[1]", "[0,4]") "},\"a\":{" F32("[1]", "[4,8]") "}}";
    const char *key, *value;
    unsigned char *block;
    Err e = {0};
    StFile *f = parse(&block, header, sizeof header - 1, 12, &e);
    (void)state;
    assert_non_null(f);
    assert_string_equal(st_label(f), "here");
    assert_int_equal(st_count(f), 3);
    assert_string_equal(st_at(f, 0)->name, "c");
    assert_string_equal(st_at(f, 1)->name, "a");
    assert_string_equal(st_at(f, 2)->name, "b");
    assert_ptr_equal(st_at(f, 2)->data, st_at(f, 0)->data + 8);
    assert_ptr_equal(st_find(f, "b"), st_at(f, 2));
    assert_null(st_find(f, "__metadata__"));
    assert_null(st_find(f, ""));
    assert_int_equal(st_meta_count(f), 2);
    st_meta_at(f, 1, &key, &value);
    assert_string_equal(key, "a");
    assert_string_equal(value, "");
    assert_string_equal(st_meta(f, "k"), "v");
    assert_null(st_meta(f, "format"));
    st_close(f);
    free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_badfiles),
        cmocka_unit_test(test_accepted_headers),
        cmocka_unit_test(test_rejected_headers),
        cmocka_unit_test(test_first_bytes),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_too_many_values),
        cmocka_unit_test(test_large_integers),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_float_types),
        cmocka_unit_test(test_integer_types),
        cmocka_unit_test(test_lookup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
