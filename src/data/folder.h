/* A folder of pictures, in three steps: which files (folder_scan.c), what they hold (folder_decode.c), and that kept
 * for the next time (folder_cache.c). Private to src/data. */
#ifndef SDLORA_FOLDER_H
#define SDLORA_FOLDER_H

#include "sdlora/data.h"

/* By these the cache sees that it is still the same file. */
typedef struct Stamp {
    int64_t size, modified, changed; /* bytes; nanoseconds */
} Stamp;

typedef struct Picture {
    char *path; /* from the folder on: "cat/a.png"; owned */
    int label;
    Stamp stamp;
} Picture;

typedef struct Lines { /* for people; all owned */
    char **item;
    int n, room;
} Lines;

/* The text is taken over, also on an error; NULL is one, already told. */
int lines_add(Lines *l, char *text, Err *e);
void lines_free(Lines *l);

typedef struct Folder {
    char *root;    /* owned */
    Picture *item; /* (n), sorted by class, then by the names on the way */
    int n, room;
    char **class_name; /* (classes) of DATA_CLASSES_MAX, owned */
    int classes;
    bool flat;      /* they lie in the root: one class */
    Lines left_out; /* folders, and why */
} Folder;

/* "a/b", or "b" where a is ""; the caller's. */
char *folder_path(const char *a, const char *b, Err *e);
#define FOLDER_RUN_FILE "run.json"
bool folder_is_picture(const char *name); /* by its ending */

/* All pictures of a folder; none is no error. `name`: of the class that there is where only files are in it. */
int folder_scan(Folder *out, const char *root, const char *name, Err *e);
void folder_free(Folder *f);

/* Where the pictures of a split lie: *root, owned by the caller. *whole: it is all in there; else a part of it. */
int folder_part(char **root, bool *whole, const char *path, DataSplit split, Err *e);
/* Is there any picture in it or deeper? Among the first hundred thousand names, that is. */
bool folder_has_picture(const char *path);

/* The classes as c has them, and the labels with them. ERR_INPUT: the folder has others. */
int folder_name_classes(Folder *f, const DataConfig *c, Err *e);
/* Leaves one part of a folder that has no parts of its own; what was left out of the folder goes with DATA_TRAIN. */
void folder_split(Folder *f, DataSplit split, double part);

/* ---- what the files hold ---- */

typedef struct PictureFacts {
    int32_t w, h;
    uint8_t mode;   /* PictureMode */
    uint8_t read;   /* 0: it could not be */
    uint8_t colour; /* its image has a pixel in colour */
    uint8_t unused; /* 0 */
} PictureFacts;

typedef struct Decoded {
    PictureFacts *facts; /* (n) as the folder has pictures, owned */
    char **why;          /* (n): NULL where it was read, or not tried; owned */
    uint8_t *px;         /* (read,channels,size,size): of those that were, owned */
    int n, read, channels, size;
    char sha256[65]; /* of px, then the labels of those that were read */
} Decoded;

/* By all threads; the bytes do not depend on their number. */
int folder_decode(Decoded *out, const Folder *f, const DataConfig *c, Err *e);
/* Why those could not be read that could not, from trying again. False: now one can. */
bool folder_ask_why(Decoded *d, const Folder *f, const DataConfig *c);
size_t decoded_image_bytes(const Decoded *d);
void decoded_free(Decoded *d);
int folder_size(const DataConfig *c); /* of images, as settled */
/* (read): the labels of what was read; the caller's. */
uint8_t *folder_labels(const Decoded *d, const Folder *f, Err *e);

/* ---- kept ----
 *
 * A file for each folder, part and wish (size, channels, fit, background), so that a folder that changes does not leave
 * old ones behind. It begins with the SHA-256 of what it is made from: the wish, and of every picture path, label, size
 * and times, which must be those that are found. What changes a picture and none of these is not seen. The rest is
 * checked by CRC-32 and by its size; the SHA-256 of the data set comes from there too. Whatever is wrong with such a
 * file, there is none then, which is no error. */

/* NULL: there is no place for it. */
char *folder_cache_path(const Folder *f, DataSplit split, const DataConfig *c);
bool folder_cache_load(Decoded *out, const char *path, const Folder *f, const DataConfig *c);
/* False: it could not be written. */
bool folder_cache_save(const char *path, const Decoded *d, const Folder *f, const DataConfig *c);

#endif
