/* The progress bar:  epoch 3/10  42% |#######----------| loss 0.0456  1830 images/s  ETA 2:41
 * The rate is an exponential mean over about the last ten draws; ETA = steps left / rate. */
#include "progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/clock.h"

#define DRAW_SECONDS  0.1
#define PLAIN_SECONDS 10.0

const char *const PROGRESS_NAMES[] = {"auto", "bar", "plain", "none", NULL};

void progress_begin(Progress *p, ProgressMode mode, bool quiet, const char *unit, int64_t first, int64_t total,
                    double per_step)
{
    memset(p, 0, sizeof *p);
    p->term = term_query();
    p->mode = mode;
    if (mode == PROGRESS_AUTO)
        p->mode = p->term.tty ? PROGRESS_BAR : PROGRESS_PLAIN;
    if (quiet)
        p->mode = PROGRESS_NONE;
    p->unit = unit;
    p->rate_step = p->done = first;
    p->total = total;
    p->per_step = per_step;
    p->rate_time = clock_seconds();
    p->drawn = p->mode == PROGRESS_PLAIN ? p->rate_time : -1;
}

static void measure_rate(Progress *p, double now)
{
    double dt = now - p->rate_time, r;
    if (p->done == p->rate_step || dt <= 0)
        return;
    r = (double)(p->done - p->rate_step) * p->per_step / dt;
    p->rate = p->rate > 0 ? 0.9 * p->rate + 0.1 * r : r;
    p->rate_time = now;
    p->rate_step = p->done;
}

static void duration_text(char *buf, size_t cap, double seconds)
{
    long s = lround(fmin(seconds, 3.6e8));
    if (s >= 3600)
        snprintf(buf, cap, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, cap, "%ld:%02ld", s / 60, s % 60);
}

static void tail_text(char *buf, size_t cap, const Progress *p, const char *suffix)
{
    char eta[32] = "";
    if (p->rate > 0) {
        char t[24];
        duration_text(t, sizeof t, (double)(p->total - p->done) * p->per_step / p->rate);
        snprintf(eta, sizeof eta, "  ETA %s", t);
    }
    snprintf(buf, cap, "%s%s%.*f %s/s%s", suffix, *suffix ? "  " : "", p->rate < 10 ? 1 : 0, p->rate, p->unit, eta);
}

/* Eighths of a block where the terminal can, '#' where it cannot. */
static void bar_text(char *buf, size_t cap, double part, int width, bool utf8)
{
    static const char *const EIGHTHS[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int eighths = (int)floor(part * width * 8), full = eighths / 8;
    size_t used = 0;
    buf[0] = '\0';
    for (int i = 0; i < width && used + 4 < cap; i++) {
        const char *cell = i < full ? (utf8 ? "█" : "#") : i == full && utf8 ? EIGHTHS[eighths % 8] : utf8 ? " " : "-";
        used += (size_t)snprintf(buf + used, cap - used, "%s", cell);
    }
}

static void draw(Progress *p, const char *prefix, const char *suffix)
{
    char tail[160], bar[4 * 200];
    double part = p->total > 0 ? (double)p->done / (double)p->total : 1.0;
    int columns = term_columns(), width;
    tail_text(tail, sizeof tail, p, suffix);
    /* one column stays free, so that the terminal does not wrap */
    width = columns - 1 - (int)(strlen(prefix) + (*prefix ? 2 : 0) + strlen("100% || ") + strlen(tail));
    width = width > 40 ? 40 : width;
    fputs("\r", stderr);
    if (width >= 5) {
        bar_text(bar, sizeof bar, part, width, p->term.utf8);
        fprintf(stderr, "%s%s%3.0f%% |%s| %s", prefix, *prefix ? "  " : "", floor(100 * part), bar, tail);
    } else {
        char line[512];
        snprintf(line, sizeof line, "%s%s%3.0f%% %s", prefix, *prefix ? "  " : "", floor(100 * part), tail);
        fprintf(stderr, "%.*s", columns - 1, line);
    }
    fputs("\033[K", stderr);
    fflush(stderr);
    p->on_screen = true;
}

static void plain(Progress *p, const char *prefix, const char *suffix)
{
    char tail[160];
    double part = p->total > 0 ? (double)p->done / (double)p->total : 1.0;
    tail_text(tail, sizeof tail, p, suffix);
    fprintf(stderr, "%s%s%3.0f%%  %s\n", prefix, *prefix ? "  " : "", floor(100 * part), tail);
}

void progress_update(Progress *p, int64_t step, const char *prefix, const char *suffix, bool milestone)
{
    double now = clock_seconds(), wait = p->mode == PROGRESS_PLAIN ? PLAIN_SECONDS : DRAW_SECONDS;
    p->done = step;
    if (p->mode == PROGRESS_NONE || (!milestone && step < p->total && now - p->drawn < wait))
        return;
    measure_rate(p, now);
    p->drawn = now;
    if (p->mode == PROGRESS_BAR)
        draw(p, prefix, suffix);
    else
        plain(p, prefix, suffix);
    if (milestone)
        progress_end(p);
}

void progress_end(Progress *p)
{
    if (p->on_screen)
        fputc('\n', stderr);
    p->on_screen = false;
}

double progress_mean(double mean, double value, int64_t seen)
{
    double k = (double)seen, keep = fmin(0.98, (1 + k) / (10 + k));
    return seen > 0 ? keep * mean + (1 - keep) * value : value;
}
