#pragma once
// Conversations and texts over grey pictures, with transformers' answers (tests/goldens/make_chat_goldens.py).
#include <gtest/gtest.h>

#include <oriel/chat.hpp>
#include <oriel/vision_tower.hpp>
#include <string>
#include <vector>

#include "core/json.hpp"

namespace oriel {

/// A tiny checkpoint with the pictures and videos of its goldens.
class ChatCases {
 public:
  explicit ChatCases(const std::string& family)
      : directory_(ORIEL_ASSETS "/tiny/" + family),
        document_(Json::read(ORIEL_TEST_DATA "/chat/" + family + ".json")),
        format_(ChatFormat::load(directory_)) {
    const VisionTower tower = VisionTower::load(directory_);
    for (const Json& size : document_["pictures"].elements())
      pictures_.push_back(tower.get_image_embeddings(grey(size.integers())));
    for (const Json& size : document_["videos"].elements())
      videos_.push_back(tower.get_video_embeddings(
          std::vector(static_cast<size_t>(size.integers()[2]), grey(size.integers())), VideoOptions{}));
  }

  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] const ChatFormat& format() const { return format_; }
  [[nodiscard]] const std::vector<MMEmbedding>& pictures() const { return pictures_; }
  [[nodiscard]] const std::vector<MMEmbedding>& videos() const { return videos_; }
  [[nodiscard]] std::vector<Json> conversations() const { return document_["conversations"].elements(); }
  [[nodiscard]] std::vector<Json> texts() const { return document_["texts"].elements(); }

  [[nodiscard]] std::vector<PromptSegment> render(const Json& conversation) const {
    std::vector<ChatMessage> messages;
    for (const Json& message : conversation["messages"].elements()) {
      ChatMessage& added = messages.emplace_back(ChatMessage{message["role"].string(), {}});
      for (const Json& part : message["content"].elements()) {
        if (part.is_string())
          added.content.emplace_back(part.string());
        else if (part["image"].has_value())
          added.content.emplace_back(pictures_.at(static_cast<size_t>(part["image"].integer())));
        else
          added.content.emplace_back(videos_.at(static_cast<size_t>(part["video"].integer())));
      }
    }
    return format_.render(messages, options(conversation));
  }

  [[nodiscard]] std::vector<PromptSegment> place(const Json& text) const {
    std::vector<MMEmbedding> embeddings;
    for (const int64_t i : text["images"].integers()) embeddings.push_back(pictures_.at(static_cast<size_t>(i)));
    for (const int64_t i : text["videos"].integers()) embeddings.push_back(videos_.at(static_cast<size_t>(i)));
    return format_.place(text["text"].string(), embeddings);
  }

 private:
  static ChatOptions options(const Json& conversation) {
    ChatOptions options{.add_generation_prompt = conversation["add_generation_prompt"].boolean()};
    if (conversation["template_arguments"].is_absent()) return options;
    for (const auto& [name, value] : conversation["template_arguments"].members()) {
      TemplateValue& argument = options.template_arguments[name];
      if (value.is_bool())
        argument = value.boolean();
      else if (value.is_string())
        argument = value.string();
      else
        argument = JsonText{value.dump()};
    }
    return options;
  }

  static Image grey(const std::vector<int64_t>& size) {
    const std::vector<uint8_t> pixels(static_cast<size_t>(size[0] * size[1] * 3), 127);
    return Image::from_pixels({.data = pixels.data(), .size = {size[0], size[1]}});
  }

  std::string directory_;
  Json document_;
  ChatFormat format_;
  std::vector<MMEmbedding> pictures_;
  std::vector<MMEmbedding> videos_;
};

inline const std::vector<std::string> chat_families = {"gemma3", "mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl"};

}  // namespace oriel
