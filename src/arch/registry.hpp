#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "arch/architecture.hpp"

namespace oriel::arch {

/// Builds the architecture that `files.config` names, without weights. Throws unsupported_model, with the list of known
/// types, for others.
[[nodiscard]] std::unique_ptr<Architecture> make_architecture(const ModelFiles& files);

/// The model types that are known, in alphabetical order.
[[nodiscard]] std::vector<std::string_view> known_model_types();

}  // namespace oriel::arch
