/* TensorBoard's event files, read back by a reader of their own: TFRecords with their checksums, then the messages of
 * event.proto and summary.proto, field by field. */
#include "check.h"
#include "io_util.h"

#include <dirent.h>
#include <sys/time.h>

#include "sdlora/events.h"
#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"

/* ---- the reader ---- */

typedef struct Span {
    const unsigned char *p;
    size_t n;
} Span;

/* A table as RFC 3720's, worked out from the polynomial, most significant bit last. */
static uint32_t crc32c_again(const unsigned char *p, size_t n)
{
    uint32_t table[256], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0x82f63b78u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    while (n--)
        crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    return crc ^ 0xffffffffu;
}

static uint64_t little(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static void check_sum(const unsigned char *p, size_t n, const unsigned char *sum)
{
    const uint32_t crc = crc32c_again(p, n);
    assert_int_equal((uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8u), (uint32_t)little(sum, 4));
}

/* The next record of the file. */
static Span record(Span *file)
{
    Span r;
    assert_true(file->n >= 16);
    check_sum(file->p, 8, file->p + 8);
    r = (Span){file->p + 12, (size_t)little(file->p, 8)};
    assert_true(r.n <= file->n - 16);
    check_sum(r.p, r.n, r.p + r.n);
    *file = (Span){r.p + r.n + 4, file->n - r.n - 16};
    return r;
}

static uint64_t varint(Span *s)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(s->n > 0 && shift < 64);
        v |= (uint64_t)(*s->p & 127) << shift;
        s->n--;
        if (!(*s->p++ & 128))
            return v;
    }
}

typedef struct Value {
    int field;
    uint64_t number; /* of wire types 0, 1 and 5 */
    Span bytes;      /* of 2 */
} Value;

static bool next(Value *v, Span *message)
{
    uint64_t key;
    size_t n;
    if (!message->n)
        return false;
    key = varint(message);
    *v = (Value){.field = (int)(key >> 3)};
    switch (key & 7) {
    case 0:
        v->number = varint(message);
        return true;
    case 2:
        n = (size_t)varint(message);
        v->bytes = (Span){message->p, n};
        break;
    default:
        n = (key & 7) == 1 ? 8 : 4;
        assert_true((key & 7) == 1 || (key & 7) == 5);
        v->number = little(message->p, (int)n);
    }
    assert_true(n <= message->n);
    *message = (Span){message->p + n, message->n - n};
    return true;
}

/* The field's value; it must be there. */
static Value field(Span message, int number)
{
    Value v;
    while (next(&v, &message))
        if (v.field == number)
            return v;
    fail_msg("field %d is missing", number);
    return v;
}

static int count(Span message, int number)
{
    Value v;
    int n = 0;
    while (next(&v, &message))
        n += v.field == number;
    return n;
}

static void check_text(Span s, const char *text)
{
    assert_int_equal(s.n, strlen(text));
    assert_memory_equal(s.p, text, s.n);
}

static double as_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static double as_float(uint64_t bits)
{
    const uint32_t low = (uint32_t)bits;
    float v;
    memcpy(&v, &low, sizeof v);
    return (double)v;
}

/* ---- files ---- */

static void write_text(const char *path, const char *text)
{
    Err err = {0};
    check_ok(file_save(path, text, strlen(text), &err), err);
}

/* The names of event files, sorted; their number. */
static int list(char name[8][256], const char *dir)
{
    struct dirent **entries;
    int all = scandir(dir, &entries, NULL, alphasort), n = 0;
    for (int i = 0; i < all; i++) {
        if (entries[i]->d_name[0] != '.' && n < 8)
            snprintf(name[n++], 256, "%s", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return n;
}

static Span load(char **text, const char *dir, const char *name)
{
    char path[FILE_PATH_MAX];
    size_t n;
    Err err;
    check_ok(file_join(path, sizeof path, dir, name, &err), err);
    check_ok(file_load(text, &n, path, 1 << 24, &err), err);
    return (Span){(const unsigned char *)*text, n};
}

/* What every file begins with. */
static void check_beginning(Span *file, uint64_t step)
{
    Span event = record(file);
    struct timeval now;
    gettimeofday(&now, NULL);
    check_text(field(event, 3).bytes, "brain.Event:2");
    check_close(as_double(field(event, 1).number), now.tv_sec, 600, 0, "the time of a file's beginning");
    event = record(file);
    assert_int_equal(field(event, 2).number, step);
    assert_int_equal(field(field(event, 7).bytes, 1).number, 1); /* SessionLog.START */
}

/* ---- tests ---- */

static void test_crc(void **state)
{
    (void)state;
    assert_int_equal(events_crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(events_crc32c("", 0), 0);
    assert_int_equal(events_crc32c((const char[32]){0}, 32), 0x8a9136aau); /* RFC 3720, B.4 */
}

static void test_scalars(void **state)
{
    const EventScalar scalar[] = {{"loss/train", 0.1}, {"loss/validation", (double)NAN}, {"lr", 1e-30}, {"big", -3e5}};
    const int there[] = {0, 2, 3};
    char name[8][256], *text;
    TmpDir tmp;
    Err err = {0};
    EventLog *l;
    Span file, event, summary;
    Value v;

    (void)state;
    tmpdir_make(&tmp);
    l = events_open(tmpdir_name(&tmp, "new/tb"), 301, &err);
    check_ptr(l, err);
    check_ok(events_scalars(l, 5000000000, scalar, 4, &err), err);
    events_close(l);
    assert_int_equal(list(name, tmpdir_name(&tmp, "new/tb")), 1);
    assert_ptr_equal(strstr(name[0], "events.out.tfevents."), name[0]);
    file = load(&text, tmpdir_name(&tmp, "new/tb"), name[0]);
    check_beginning(&file, 301);
    event = record(&file);
    assert_int_equal(file.n, 0);
    assert_int_equal(field(event, 2).number, 5000000000);
    summary = field(event, 5).bytes;
    assert_int_equal(count(summary, 1), 3); /* not the one that is not measured */
    for (int i = 0; next(&v, &summary); i++) {
        check_text(field(v.bytes, 1).bytes, scalar[there[i]].tag);
        check_close(as_float(field(v.bytes, 2).number), scalar[there[i]].value, 0, 1e-7, "a scalar");
    }
    mem_free(text);
    tmpdir_remove(&tmp);
}

static void test_picture(void **state)
{
    Image im = {.w = 300, .h = 7, .channels = 3};
    char name[8][256], *text, *png, path[FILE_PATH_MAX];
    size_t size;
    TmpDir tmp;
    Err err = {0};
    EventLog *l;
    Span file, event, value, image;

    (void)state;
    tmpdir_make(&tmp);
    im.px = mem_alloc(image_bytes(&im), 1, "pixels", &err);
    for (size_t i = 0; i < image_bytes(&im); i++)
        im.px[i] = (uint8_t)(i * i % 251);
    snprintf(path, sizeof path, "%s", tmpdir_name(&tmp, "a.png"));
    check_ok(image_write_png(path, &im, NULL, &err), err);
    check_ok(file_load(&png, &size, path, 1 << 20, &err), err);
    l = events_open(tmpdir_name(&tmp, "tb"), 1, &err);
    check_ptr(l, err);
    check_ok(events_picture(l, 12, "samples", png, size, &err), err);
    assert_int_equal(events_picture(l, 13, "none", png + 1, size - 1, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    events_close(l);
    list(name, tmpdir_name(&tmp, "tb"));
    file = load(&text, tmpdir_name(&tmp, "tb"), name[0]);
    check_beginning(&file, 1);
    event = record(&file);
    assert_int_equal(file.n, 0);
    assert_int_equal(field(event, 2).number, 12);
    value = field(field(event, 5).bytes, 1).bytes;
    check_text(field(value, 1).bytes, "samples");
    image = field(value, 4).bytes;
    assert_int_equal(field(image, 1).number, 7);
    assert_int_equal(field(image, 2).number, 300);
    assert_int_equal(field(image, 3).number, 3);
    assert_int_equal(field(image, 4).bytes.n, size);
    assert_memory_equal(field(image, 4).bytes.p, png, size);
    mem_free(png);
    mem_free(text);
    image_free(&im);
    tmpdir_remove(&tmp);
}

/* Whoever resumes within the same second gets a file of his own, which comes later. */
static void test_names(void **state)
{
    char name[8][256], *text;
    TmpDir tmp;
    Err err = {0};

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 1; i <= 4; i++) {
        EventLog *l = events_open(tmpdir_name(&tmp, "tb"), i, &err);
        check_ptr(l, err);
        events_close(l);
    }
    assert_int_equal(list(name, tmpdir_name(&tmp, "tb")), 4);
    for (int i = 0; i < 4; i++) {
        Span file = load(&text, tmpdir_name(&tmp, "tb"), name[i]);
        check_beginning(&file, (uint64_t)i + 1);
        mem_free(text);
    }
    write_text(tmpdir_name(&tmp, "file"), "");
    assert_null(events_open(tmpdir_name(&tmp, "file"), 1, &err));
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
