#pragma once
// ORIEL_VECTORISED: a loop that is compiled for several instruction sets, of which the processor's best is chosen when
// the program is loaded. Write loops that the compiler can vectorise without reordering sums.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ORIEL_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define ORIEL_VECTORISED
#endif
