#pragma once
// oriel: the image half of vision-language models. One include for everything but oriel/torch.hpp.
#include <oriel/chat.hpp>
#include <oriel/embedding_cache.hpp>
#include <oriel/error.hpp>
#include <oriel/generator.hpp>
#include <oriel/image.hpp>
#include <oriel/load_options.hpp>
#include <oriel/log.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/safetensors.hpp>
#include <oriel/sampler_settings.hpp>
#include <oriel/tensor.hpp>
#include <oriel/text_model.hpp>
#include <oriel/tokenizer.hpp>
#include <oriel/types.hpp>
#include <oriel/version.hpp>
#include <oriel/vision_tower.hpp>
