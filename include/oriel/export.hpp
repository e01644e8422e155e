#pragma once
// ORIEL_API marks the symbols that the shared library exports; everything else is hidden.
#if defined(_WIN32)
#define ORIEL_API
#else
#define ORIEL_API __attribute__((visibility("default")))
#endif
