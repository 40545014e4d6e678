// The few functions of a C library that a plugin cannot do without, so that it needs none, and with it no WASI.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The linker's mark: memory from here on is free.
extern unsigned char __heap_base;

#define PAGE 65536u
// As wide as the widest type that C aligns by itself. A block's size stands in the 16 bytes before it.
#define ALIGN 16u

static uintptr_t top;
static size_t live;

// The runtime makes a fresh instance for each call, and drops its memory as a whole. So blocks only pile up, until all are free.
void *malloc(size_t size) {
  if (live == 0) top = ((uintptr_t)&__heap_base + ALIGN - 1) / ALIGN * ALIGN;
  if (size > SIZE_MAX / 2) return NULL;
  uintptr_t block = top + ALIGN;
  uintptr_t end = (block + size + ALIGN - 1) / ALIGN * ALIGN;
  if (end < top) return NULL;
  size_t pages = __builtin_wasm_memory_size(0), needed = end / PAGE + 1;
  if (needed > pages && __builtin_wasm_memory_grow(0, needed - pages) == (size_t)-1) return NULL;
  *(size_t *)top = size;
  top = end;
  live++;
  return (void *)block;
}

void *calloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  void *block = malloc(bytes);
  return block == NULL ? NULL : memset(block, 0, bytes);
}

void *realloc(void *block, size_t size) {
  if (block == NULL) return malloc(size);
  size_t old = *(size_t *)((uintptr_t)block - ALIGN);
  if (size <= old) return block;
  void *moved = malloc(size);
  if (moved == NULL) return NULL;
  memcpy(moved, block, old);
  free(block);
  return moved;
}

void free(void *block) {
  if (block != NULL) live--;
}

// The call fails as a trap, and the runtime goes on.
_Noreturn void abort(void) { __builtin_trap(); }

// One instruction each, with bulk memory.
void *memcpy(void *restrict to, const void *restrict from, size_t length) { return __builtin_memcpy(to, from, length); }
void *memmove(void *to, const void *from, size_t length) { return __builtin_memmove(to, from, length); }
void *memset(void *to, int byte, size_t length) { return __builtin_memset(to, byte, length); }

int memcmp(const void *a, const void *b, size_t length) {
  const unsigned char *left = a, *right = b;
  for (size_t i = 0; i < length; i++) {
    if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
  }
  return 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length] != '\0') length++;
  return length;
}
