/* Which of the known names was probably meant: by edit distance. */
#include "base/text.h"

#include <string.h>

#define NAME_MAX_COMPARED 63

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, one row of the matrix at a time. */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t row[NAME_MAX_COMPARED + 1];
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smaller(replaced, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

/* A third of it may be wrong ("memroy_mb"); a name cut short or written longer counts as close too
 * ("memory"). */
static size_t distance_between(const char *wanted, const char *name)
{
    size_t wanted_len = strlen(wanted), name_len = strlen(name);
    if (wanted_len > NAME_MAX_COMPARED || name_len > NAME_MAX_COMPARED)
        return SIZE_MAX;
    size_t distance = edit_distance(wanted, wanted_len, name, name_len);
    size_t shorter = smaller(wanted_len, name_len);
    bool beginning = shorter >= 3 && strncmp(wanted, name, shorter) == 0;
    return beginning || distance <= (wanted_len + 2) / 3 ? distance : SIZE_MAX;
}

void nearest_offer(struct nearest *nearest, const char *name)
{
    size_t distance = distance_between(nearest->wanted, name);
    if (distance == SIZE_MAX || (nearest->best && distance >= nearest->distance))
        return;
    nearest->best = name;
    nearest->distance = distance;
}
