#pragma once
// The version of these headers. CMakeLists.txt reads it here: this is the one place where it is written by hand, beside
// the two package recipes in packaging/, which a test compares with it.
#include <string_view>

#include <oriel/export.hpp>

#define ORIEL_VERSION_MAJOR 0
#define ORIEL_VERSION_MINOR 1
#define ORIEL_VERSION_PATCH 0
/// For comparisons in the preprocessor: ORIEL_VERSION >= 10203 is true from 1.2.3 on.
#define ORIEL_VERSION (ORIEL_VERSION_MAJOR * 10000 + ORIEL_VERSION_MINOR * 100 + ORIEL_VERSION_PATCH)

namespace oriel {

/// The version of the library that was linked, such as "0.1.0". Versions of one minor fit together, so a program may
/// find a later patch here than its headers say.
[[nodiscard]] ORIEL_API std::string_view version() noexcept;

}  // namespace oriel
