/* Archives byte by byte, for tests: whatever no archiver would write can be written here. */
#pragma once

#include "base/buffer.h"

#include <criterion/criterion.h>
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ARCHIVE_MAX (64u * 1024 * 1024)

static inline void put(struct buffer *out, const void *bytes, size_t len)
{
    struct error err = {0};
    cr_assert_eq(buffer_append(out, bytes, len, &err), 0, "%s", err.message);
}

static inline void put_zeros(struct buffer *out, size_t len)
{
    static const char zeros[4096];
    for (; len > sizeof(zeros); len -= sizeof(zeros))
        put(out, zeros, sizeof(zeros));
    put(out, zeros, len);
}

/* ---- tar (POSIX ustar) ---- */

struct tar_entry {
    const char *name; /* at most 100 bytes */
    char
        type; /* '0' file, '1' hard link, '2' symbolic link, '3' '4' device, '5' folder, '6' fifo */
    const char *link;
    const char *data; /* NULL: `size` zeros */
    size_t size;      /* of the data; 0 with data: its length as a string */
    unsigned mode;    /* 0: 0644 */
    unsigned long mtime;
};

/* A header whose size field says `size`; nothing else is written. */
static inline void tar_header(struct buffer *out, const struct tar_entry *entry, size_t size)
{
    unsigned char head[512] = {0};
    unsigned sum = 0;
    snprintf((char *)head + 100, 8, "%07o", entry->mode ? entry->mode & 07777 : 0644);
    snprintf((char *)head + 108, 8, "%07o", 0);
    snprintf((char *)head + 116, 8, "%07o", 0);
    snprintf((char *)head + 124, 12, "%011zo", size & 077777777777);
    snprintf((char *)head + 136, 12, "%011lo", entry->mtime);
    memset(head + 148, ' ', 8);
    head[156] = (unsigned char)(entry->type ? entry->type : '0');
    memcpy(head + 257,
           "ustar\0"
           "00",
           8);
    memcpy(head, entry->name, strnlen(entry->name, 100));
    if (entry->link)
        memcpy(head + 157, entry->link, strnlen(entry->link, 100));
    for (size_t i = 0; i < sizeof(head); i++)
        sum += head[i];
    snprintf((char *)head + 148, 8, "%06o", sum);
    put(out, head, sizeof(head));
}

static inline void tar_add(struct buffer *out, struct tar_entry entry)
{
    size_t size = entry.size ? entry.size : entry.data ? strlen(entry.data) : 0;
    tar_header(out, &entry, size);
    if (entry.data)
        put(out, entry.data, size);
    else
        put_zeros(out, size);
    put_zeros(out, (512 - size % 512) % 512);
}

static inline void tar_end(struct buffer *out)
{
    put_zeros(out, 1024);
}

/* ---- gzip: without compression, which is the same to whoever reads it ---- */

static inline uint32_t crc32_of(const void *bytes, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= ((const unsigned char *)bytes)[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static inline void put16(struct buffer *out, uint16_t number)
{
    number = htole16(number);
    put(out, &number, sizeof(number));
}

static inline void put32(struct buffer *out, uint32_t number)
{
    number = htole32(number);
    put(out, &number, sizeof(number));
}

static inline void gzip(struct buffer *out, const struct buffer *in)
{
    put(out, "\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
    size_t at = 0;
    do {
        size_t len = in->len - at < 65535 ? in->len - at : 65535;
        put(out, at + len == in->len ? "\1" : "\0", 1);
        put16(out, (uint16_t)len);
        put16(out, (uint16_t)~len);
        put(out, in->data + at, len);
        at += len;
    } while (at < in->len);
    put32(out, crc32_of(in->data, in->len));
    put32(out, (uint32_t)in->len);
}

/* ---- zip, stored ---- */

struct zip_entry {
    const char *name;
    const char *data;
    uint16_t flags;     /* 1: encrypted, 0x800: the name is UTF-8 */
    uint32_t mode;      /* st_mode; 0: a regular file, 0644 */
    uint32_t claimed;   /* size in the headers; 0: the true one */
    uint32_t crc_error; /* added to the checksum */
};

static inline void zip_common(struct buffer *out, const struct zip_entry *entry)
{
    size_t len = strlen(entry->data);
    put16(out, entry->flags);
    put16(out, 0);          /* stored */
    put32(out, 0x00210000); /* 1980-01-01 */
    put32(out, crc32_of(entry->data, len) + entry->crc_error);
    put32(out, (uint32_t)len);
    put32(out, entry->claimed ? entry->claimed : (uint32_t)len);
    put16(out, (uint16_t)strlen(entry->name));
}

static inline void make_zip(struct buffer *out, const struct zip_entry *entries, size_t count)
{
    uint32_t offsets[16];
    cr_assert_leq(count, 16u);
    for (size_t i = 0; i < count; i++) {
        offsets[i] = (uint32_t)out->len;
        put(out, "PK\3\4\x14\0", 6);
        zip_common(out, &entries[i]);
        put16(out, 0);
        put(out, entries[i].name, strlen(entries[i].name));
        put(out, entries[i].data, strlen(entries[i].data));
    }
    uint32_t directory = (uint32_t)out->len;
    for (size_t i = 0; i < count; i++) {
        put(out, "PK\1\2\x14\3\x14\0", 8); /* made on Unix */
        zip_common(out, &entries[i]);
        put16(out, 0); /* extra, comment, disk, internal attributes */
        put16(out, 0);
        put16(out, 0);
        put16(out, 0);
        put32(out, (entries[i].mode ? entries[i].mode : 0100644) << 16);
        put32(out, offsets[i]);
        put(out, entries[i].name, strlen(entries[i].name));
    }
    uint32_t len = (uint32_t)out->len - directory;
    put(out, "PK\5\6\0\0\0\0", 8);
    put16(out, (uint16_t)count);
    put16(out, (uint16_t)count);
    put32(out, len);
    put32(out, directory);
    put16(out, 0);
}
