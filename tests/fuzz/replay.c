/* SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later */
/*
 * Runs a fuzz target over the files of the directories named, so that what
 * fuzzing found once is tested everywhere, without libFuzzer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int
replay_file(const char *path)
{
    uint8_t *data = NULL;
    FILE *file = fopen(path, "rb");
    long size;

    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0 || fseek(file, 0, SEEK_SET)) {
        perror(path);
        return -1;
    }
    data = malloc(size ? (size_t)size : 1); /* exactly: one byte too far is seen by ASan */
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size) {
        perror(path);
        return -1;
    }
    fclose(file);
    printf("%s\n", path);
    fflush(stdout); /* names the input of a crash */
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return 0;
}

/* How many files there were; -1: one could not be read. */
static int
replay_directory(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char file[4096];
    int count = 0;

    if (!dir) {
        perror(path);
        return -1;
    }
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        if (replay_file(file) < 0)
            return -1;
        count++;
    }
    closedir(dir);
    return count;
}

int
main(int argc, char **argv)
{
    int total = 0;

    for (int i = 1; i < argc; i++) {
        int count = replay_directory(argv[i]);

        if (count < 0)
            return 1;
        total += count;
    }
    if (total == 0) {
        fprintf(stderr, "replay: no input\n");
        return 1;
    }
    printf("%d inputs\n", total);
    return 0;
}
