#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "arch/architecture.hpp"
#include "arch/text_architecture.hpp"

namespace oriel::arch {

/// Builds the architecture that `files.config` names, without weights. Throws unsupported_model, with the list of known
/// types, for others.
[[nodiscard]] std::unique_ptr<Architecture> make_architecture(const ModelFiles& files);

/// The same for the text side; unsupported_model also for checkpoints without one.
[[nodiscard]] std::unique_ptr<TextArchitecture> make_text_architecture(const ModelFiles& files);

/// The model types that are known, in alphabetical order.
[[nodiscard]] std::vector<std::string_view> known_model_types();

}  // namespace oriel::arch
