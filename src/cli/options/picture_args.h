/* The options for folders of pictures, of the commands that read data; and reading with them, as people see it. */
#ifndef SDLORA_CLI_PICTURE_ARGS_H
#define SDLORA_CLI_PICTURE_ARGS_H

#include "sdlora/data.h"

#include "../cli.h"
#include "../term/progress.h"

typedef struct PictureArgs {
    Fit fit;
    const char *background, *val; /* val: NULL where not given */
    double val_split;
    bool grey, rgb, strict, cache;
} PictureArgs;

#define PICTURE_ARGS_DEFAULT                                                                                           \
    {                                                                                                                  \
        .background = "white", .val_split = 0.05, .cache = true                                                        \
    }

/* clang-format off */
#define OPTIONS_CHANNELS(T, member) \
    {.name = "grey", .alias = "gray", .flags = OPT_FIXED, \
     OPTION_OWN(T, FIELD_BOOL, member.grey, .help = "one channel, also where there is colour")}, \
    {.name = "rgb", .alias = "color", .flags = OPT_FIXED, \
     OPTION_OWN(T, FIELD_BOOL, member.rgb, .help = "three channels, also where all is grey")}
#define OPTIONS_PICTURES(T, member) \
    {.name = "fit", .flags = OPT_FIXED, \
     OPTION_OWN(T, FIELD_ENUM, member.fit, .names = FIT_NAMES, \
                .help = "how pictures become square: the middle; all of it, beside background; out of shape")}, \
    {.name = "background", .flags = OPT_FIXED, .arg = "#RRGGBB", \
     OPTION_OWN(T, FIELD_TEXT, member.background, \
                .help = "what transparent pixels show, also white or black")}, \
    {.name = "val", .flags = OPT_KEPT, .arg = "DIR", \
     OPTION_OWN(T, FIELD_TEXT, member.val, .help = "data to validate with [a part of the folder, or its val/ or test/]")}, \
    {.name = "val-split", .flags = OPT_FIXED, \
     OPTION_OWN(T, FIELD_REAL, member.val_split, .max = 0.9, \
                .help = "how much of a folder without val/ or test/ is not trained on, by the hash of each name")}, \
    {.name = "strict", \
     OPTION_OWN(T, FIELD_BOOL, member.strict, .help = "refuse pictures that cannot be read, instead of leaving them out")}, \
    {.name = "cache", \
     OPTION_OWN(T, FIELD_BOOL, member.cache, .help = "keep decoded pictures in ~/.cache/sdlora for the next time")}
/* clang-format on */

/* What the options want; size and channels (0: as --grey, --rgb or the data say) are the caller's. */
int picture_args_config(DataConfig *out, const PictureArgs *a, int size, int channels, Err *e);

/* dataset_read with the cache and a progress bar, where it takes long. */
int picture_args_read(Dataset *out, const char *path, DataSplit split, const DataConfig *c, const PictureArgs *a,
                      ProgressMode progress, bool quiet, Err *e);

/* On standard error: what was left out, and which channels the data turned out to have. */
void picture_args_say(const Dataset *d, const DataConfig *c);

/* Refuse (ERR_USAGE) an output that would lie among the pictures of the folder `path`, and become one of them. */
int picture_args_check_output(const char *output, const char *path, Err *e);

#endif
