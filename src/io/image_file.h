/* What a picture's file says before it is decoded. Private to src/io. */
#ifndef SDLORA_IMAGE_FILE_H
#define SDLORA_IMAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

typedef struct ImageFile {
    const uint8_t *bytes; /* n, borrowed */
    size_t n;
    const char *name; /* for messages */
    int64_t w, h;     /* as its header has them, above 0 */
    int orientation;  /* EXIF's, 1 to 8; 1 where there is none */
    bool plain_cmyk;  /* a JPEG of four channels without Adobe's marker */
    bool gif_ground;  /* a GIF with a colour for what its first image leaves free */
} ImageFile;

enum { GIF_GROUND = 11 }; /* where a GIF has that colour's number */

/* Fills what follows `name`, walking through the parts of the file to its end. ERR_INPUT: no PNG, JPEG, BMP or GIF; cut
 * short; a PNG with a wrong checksum; no pixels, or too many. Takes no memory. */
int image_file_look(ImageFile *f, Err *e);

#endif
