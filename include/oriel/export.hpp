#pragma once
// ORIEL_API marks what the shared library exports; everything else is hidden. ORIEL_LOCAL hides a class again that
// stands inside an exported one.
#if defined(_WIN32)
#define ORIEL_API
#define ORIEL_LOCAL
#else
#define ORIEL_API __attribute__((visibility("default")))
#define ORIEL_LOCAL __attribute__((visibility("hidden")))
#endif
