/* libFuzzer target: any bytes as the files of CIFAR-10 (first byte even) or CIFAR-100: up to the last 0x0c the text of
 * the classes' names, the rest the records. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sdlora/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static char dir[] = "/dev/shm/fuzz-cifar-XXXXXX";

static const char *place(char path[64], const char *name)
{
    snprintf(path, 64, "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const uint8_t *bytes, size_t size)
{
    char path[64];
    FILE *f = fopen(place(path, name), "wb");

    if (!f || fwrite(bytes, 1, size, f) != size || fclose(f))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const records[] = {"data_batch_1.bin", "train.bin"};
    static const char *const names[] = {"batches.meta.txt", "fine_label_names.txt"};
    static int made;
    const DataConfig c = DATA_DEFAULTS;
    Err e = {ERR_NONE, ""};
    char path[64];
    size_t cut = size;
    Dataset d;
    int kind;

    if (size == 0)
        return 0;
    if (!made++ && !mkdtemp(dir))
        abort();
    kind = bytes[0] & 1;
    while (cut > 1 && bytes[cut - 1] != 0x0c)
        cut--;
    unlink(place(path, records[!kind]));
    unlink(place(path, names[!kind]));
    put(names[kind], bytes + 1, cut > 1 ? cut - 2 : 0);
    put(records[kind], bytes + cut, size - cut);
    if (dataset_read(&d, dir, DATA_TRAIN, &c, &e) == 0) {
        if (d.n < 1 || d.channels != 3 || d.h != 32 || d.w != 32 || d.classes < 1 || d.classes > DATA_CLASSES_MAX)
            abort();
        for (int i = 0; i < d.n; i++)
            if (d.labels[i] >= d.classes)
                abort();
        dataset_free(&d);
    } else if (e.code != ERR_INPUT || !e.msg[0]) {
        abort();
    }
    return 0;
}
