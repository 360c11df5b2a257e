/* Names of classes: what is one (names.h), in files of models and adapters (store.h), and in classes.txt beside images
 * (data.h). */
#include "adapter_file_util.h"

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/names.h"
#include "sdlora/text.h"

static ClassNames list_of(const char *const *names)
{
    ClassNames c = {0};
    Err err;

    for (; *names; names++)
        check_ok(names_add(&c, *names, &err), err);
    return c;
}

static bool names_same(const ClassNames *a, const ClassNames *b)
{
    bool same = a->n == b->n;

    for (int i = 0; i < a->n && same; i++)
        same = !strcmp(a->name[i], b->name[i]);
    return same;
}

static void test_what_is_a_name(void **state)
{
    static const char *const good[] = {"a", "cat", "wild dog", "rock, paper", "\xc3\xa4", "\xe7\x8c\xab",
                                       "5", "\\",  "'"};
    static const char *const bad[] = {"",     "a\nb", "\x1b[2J", "a\x7f", "\xc2\x85", "\xe2\x80\xae",
                                      "\xff", "\xc3", "a\t"};
    char longest[CLASS_NAME_MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(name_is_good(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(name_is_good(bad[i]));
    memset(longest, 'x', sizeof longest);
    longest[CLASS_NAME_MAX - 1] = '\0';
    assert_true(name_is_good(longest));
    longest[CLASS_NAME_MAX - 1] = 'x';
    longest[CLASS_NAME_MAX] = '\0';
    assert_false(name_is_good(longest));
}

static void test_list(void **state)
{
    static const char *const animals[] = {"cat", "Cat", "dog", NULL};
    ClassNames c = list_of(animals), copy = {0}, none = {0};
    char number[CLASS_NAME_MAX];
    Err err;

    (void)state;
    assert_int_equal(names_find(&c, "dog"), 2);
    assert_int_equal(names_find(&c, "Cat"), 1);
    assert_int_equal(names_find(&c, "do"), -1);
    assert_int_equal(names_add(&c, "cat", &err), -1);
    assert_says(err, "two classes are called 'cat'");
    assert_int_equal(names_add(&c, "\x1b[2J", &err), -1);
    assert_says(err, "'\\x1b[2J'");
    assert_int_equal(c.n, 3);
    check_ok(names_copy(&copy, &c, &err), err);
    assert_true(names_same(&copy, &c));
    check_ok(names_fill(&copy, 5, &err), err);
    assert_false(names_same(&copy, &c));
    assert_int_equal(copy.n, 5);
    assert_string_equal(names_at(number, &copy, 4), "4");
    assert_string_equal(names_at(number, &none, 12), "12");
    copy.name[4][0] = 'x';
    assert_int_equal(names_find(&c, "x"), -1); /* the copy is its own */
    check_ok(names_fill(&none, CLASS_NAMES_MAX, &err), err);
    assert_int_equal(names_add(&none, "one more", &err), -1);
    assert_says(err, "more than 256");
    check_ok(names_add(&c, "4", &err), err);
    check_ok(names_fill(&c, 5, &err), err);
    assert_string_equal(c.name[4], "class 4"); /* class 3 is called "4" */
    names_free(&c);
    assert_int_equal(c.n, 0);
    names_free(&copy);
    names_free(&none);
}

/* ---- files ---- */

static void name_ten(ClassNames *c)
{
    static const char *const ten[] = {"zero", "one", "two, 2", "\xe4\xb8\x89", "4", "f", "g", "h", "i", "j", NULL};
    *c = list_of(ten);
}

/* Loaded, and a copy of that: how many names there are, which are those of m where there are any. */
static int names_in_file(const Model *m, TmpDir *t)
{
    const char *path = tmpdir_name(t, "m.safetensors");
    Model *back, *copy;
    int n;
    Err err;

    check_ok(model_save(m, path, &err), err);
    back = model_load(path, false, &err);
    check_ptr(back, err);
    copy = model_copy(back, &err);
    check_ptr(copy, err);
    n = copy->names.n;
    assert_true(n == 0 || names_same(&copy->names, &m->names));
    assert_int_equal(n, back->names.n);
    model_free(back);
    model_free(copy);
    return n;
}

static void test_model(void **state)
{
    Model *m = small_model();
    TmpDir t;

    (void)state;
    tmpdir_make(&t);
    assert_int_equal(m->config.classes, 10);
    assert_int_equal(names_in_file(m, &t), 0);
    name_ten(&m->names);
    assert_int_equal(names_in_file(m, &t), 10);
    m->names.n = 9; /* those of a model of nine classes */
    assert_int_equal(names_in_file(m, &t), 0);
    m->names.n = 10;
    strcpy(m->names.name[7], "zero");
    assert_int_equal(names_in_file(m, &t), 0);
    strcpy(m->names.name[7], "bell\a");
    assert_int_equal(names_in_file(m, &t), 0);
    strcpy(m->names.name[7], "h");
    assert_int_equal(names_in_file(m, &t), 10);
    model_free(m);
    tmpdir_remove(&t);
}

/* {"classes": N, "class_names": LIST} in an adapter's file. */
static int names_of_adapter(Model *m, const char *facts, TmpDir *t)
{
    File *f = file_new();
    Adapter *a;
    int n;
    Err err;

    add_peft(f, m, LAYER_Q, PREFIX, 2);
    f->key = "sdlora.facts";
    f->text = facts;
    write_file(f, tmpdir_name(t, "a.safetensors"));
    a = adapter_load(tmpdir_name(t, "a.safetensors"), m, &err);
    check_ptr(a, err);
    n = a->names.n;
    adapter_free(a);
    free(f);
    return n;
}

static void test_adapter(void **state)
{
    static const struct {
        const char *facts;
        int n;
    } cases[] = {
        {"{\"classes\": 2, \"class_names\": [\"a\", \"b c\"]}", 2},
        {"{\"classes\": 3, \"class_names\": [\"a\", \"b\"]}", 0},
        {"{\"class_names\": [\"a\", \"b\"]}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", 2]}", 0},
        {"{\"classes\": 1, \"class_names\": [\"a\", 2]}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", null]}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", [\"b\"]]}", 0},
        {"{\"classes\": 2, \"class_names\": {\"a\": \"b\", \"c\": \"d\"}}", 0},
        {"{\"classes\": 1, \"class_names\": \"a\"}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", \"a\"]}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", \"\"]}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", \"b\\u001b[2J\"]}", 0},
        {"{\"classes\": 2, \"class_names\": [\"a\", \"b\\u202e\"]}", 0},
    };
    Model *m = small_model();
    char json[CLASS_NAME_MAX + 64], many[300 * 8 + 64], name[CLASS_NAME_MAX + 1];
    size_t used;
    TmpDir t;

    (void)state;
    tmpdir_make(&t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (names_of_adapter(m, cases[i].facts, &t) != cases[i].n)
            fail_msg("%s", cases[i].facts);
    memset(name, 'x', sizeof name);
    for (int len = CLASS_NAME_MAX - 1; len <= CLASS_NAME_MAX; len++) {
        snprintf(json, sizeof json, "{\"classes\": 1, \"class_names\": [\"%.*s\"]}", len, name);
        assert_int_equal(names_of_adapter(m, json, &t), len < CLASS_NAME_MAX);
    }
    for (int n = CLASS_NAMES_MAX; n <= CLASS_NAMES_MAX + 1; n++) {
        used = (size_t)snprintf(many, sizeof many, "{\"classes\": %d, \"class_names\": [", n);
        for (int i = 0; i < n; i++)
            used += (size_t)snprintf(many + used, sizeof many - used, "%s\"%d\"", i ? "," : "", i);
        snprintf(many + used, sizeof many - used, "]}");
        assert_int_equal(names_of_adapter(m, many, &t), n == CLASS_NAMES_MAX ? n : 0);
    }
    model_free(m);
    tmpdir_remove(&t);
}

/* ---- classes.txt ---- */

/* Three images of labels 0, 2, 1 in t, and that text beside them. */
static void write_set(TmpDir *t, const char *text, size_t size)
{
    uint8_t px[3 * 4] = {1, 2, 3}, labels[3] = {0, 2, 1};
    Dataset d = {.n = 3, .channels = 1, .h = 2, .w = 2, .classes = 3, .images = px, .labels = labels};
    Err err;

    check_ok(dataset_write(t->path, DATA_TRAIN, &d, &err), err);
    check_ok(file_save(tmpdir_name(t, "classes.txt"), text, size, &err), err);
}

static void test_file(void **state)
{
    static const char *const good[] = {"cat\nwild dog\nrock, paper\n", "cat\r\nwild dog\r\nrock, paper",
                                       "cat\nwild dog\nrock, paper\n\n\r\n"};
    Dataset d;
    TmpDir t;
    Err err;

    (void)state;
    tmpdir_make(&t);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        write_set(&t, good[i], strlen(good[i]));
        check_ok(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &err), err);
        assert_int_equal(d.classes, 3);
        assert_string_equal(d.class_name[0], "cat");
        assert_string_equal(d.class_name[1], "wild dog");
        assert_string_equal(d.class_name[2], "rock, paper");
        assert_int_equal(d.labels[1], 2);
        dataset_free(&d);
    }
    write_set(&t, "a\nb\nc\nd\n", 8); /* one that no image has */
    check_ok(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &err), err);
    assert_int_equal(d.classes, 4);
    assert_string_equal(d.class_name[3], "d");
    check_ok(dataset_balance(&d, 3, &err), err);
    assert_int_equal(d.classes, 4);
    unlink(tmpdir_name(&t, "classes.txt"));
    check_ok(dataset_write(t.path, DATA_TRAIN, &d, &err), err); /* a copy has the names, too */
    dataset_free(&d);
    check_ok(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &err), err);
    assert_int_equal(d.classes, 4);
    assert_string_equal(d.class_name[1], "b");
    dataset_free(&d);
    tmpdir_remove(&t);
}

static void test_bad_files(void **state)
{
    static const struct {
        const char *text, *says;
        size_t size;
    } cases[] = {
        {"a\nb\n", "names 2 classes, and label 2, of image 1, is none of them", 4},
        {"a\nb\na\n", "classes.txt', line 3: two classes are called 'a'", 6},
        {"a\n\nc\n", "line 2: no class can be called ''", 5},
        {"a\nb\x1b\nc\n", "line 2: no class can be called 'b\\x1b'", 7},
        {"a\nb\nc\xff\n", "line 3: no class can be called 'c\\xff'", 7},
        {"a\nb\0\nc\n", "zero byte", 7},
        {"\n\n", "names no class", 2},
        {"", "names no class", 0},
    };
    Dataset d;
    TmpDir t;
    char *large;
    Err err;

    (void)state;
    tmpdir_make(&t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_set(&t, cases[i].text, cases[i].size);
        assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &err), -1);
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, cases[i].says);
    }
    large = malloc(100000);
    assert_non_null(large);
    memset(large, 'x', 100000);
    write_set(&t, large, 100000);
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &err), -1);
    assert_says(err, "classes.txt");
    free(large);
    tmpdir_remove(&t);
}

static void test_ascii(void **state)
{
    char out[32];

    (void)state;
    assert_string_equal(text_ascii(out, sizeof out, "a\xc3\xa4\xe7\x8c\xab b\xff\t"), "a?? b??");
    assert_string_equal(text_ascii(out, 4, "abcdef"), "abc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_a_name), cmocka_unit_test(test_list), cmocka_unit_test(test_model),
        cmocka_unit_test(test_adapter),        cmocka_unit_test(test_file), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_ascii),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
