// MMEmbedding::load. The input is the file.
#include "fuzz/memory_file.hpp"
#include "oriel/mm_embedding.hpp"

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  return oriel::fuzz::mutate_safetensors(data, size, max_size, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace oriel;
  static fuzz::MemoryFile memory;
  memory.write({data, size});
  fuzz::succeeds([&] {
    const MMEmbedding embedding = MMEmbedding::load(memory.path());
    const auto length = static_cast<size_t>(embedding.length());
    fuzz::require(length > 0 && embedding.hidden_size() > 0, "there are rows");
    fuzz::require(embedding.ids().size() == length, "an id a row");
    const auto [first, last] = embedding.vision_id_range();
    fuzz::require(first <= last && last <= embedding.first_id() + embedding.length(), "special rows are rows");
    fuzz::require(embedding.embeddings().to_float32().size() == length * static_cast<size_t>(embedding.hidden_size()),
                  "all values are there");
    fuzz::succeeds([&] {
      const auto tokens = embedding.tokens();
      fuzz::require(tokens.size() >= length, "a token for every row");
    });
    fuzz::succeeds([&] { (void)embedding.to_original({1, 2}); });
    fuzz::succeeds([&] { (void)embedding.to_preprocessed({3, 4}); });
    fuzz::require(embedding.with_alias("<a>").text_alias() == "<a>", "an alias can be given");
  });
  return 0;
}
