#include <oriel/version.hpp>

#define ORIEL_QUOTE_VALUE(number) #number
#define ORIEL_QUOTE(macro) ORIEL_QUOTE_VALUE(macro)

namespace oriel {

std::string_view version() noexcept {
  return ORIEL_QUOTE(ORIEL_VERSION_MAJOR) "." ORIEL_QUOTE(ORIEL_VERSION_MINOR) "." ORIEL_QUOTE(ORIEL_VERSION_PATCH);
}

}  // namespace oriel
