#include <cstdio>
#include <oriel/oriel.hpp>

int main(int argc, char** argv) try {
  if (argc != 3) return std::fprintf(stderr, "usage: quickstart MODEL_DIRECTORY IMAGE\n"), 1;

  const oriel::VisionTower tower = oriel::VisionTower::load(argv[1]);
  const oriel::ImagePlan plan = tower.plan(oriel::Image::probe(argv[2]).upright());  // reads the header alone
  std::printf("%ld tokens, %ld bytes of rows\n", plan.tokens, plan.embedding_bytes);

  const oriel::Image photo = oriel::Image::open(argv[2]);
  const oriel::MMEmbedding embedding = tower.get_image_embeddings(photo, {.text_alias = "<image_1>"});

  std::printf("%s: rows [%ld, %ld], ids from %ld\n", embedding.text_alias().c_str(), embedding.length(),
              embedding.hidden_size(), embedding.first_id());
  std::printf("prompt ids %ld, %ld, ... %ld\n", embedding.tokens()[0], embedding.tokens()[1],
              embedding.tokens().back());
  std::printf("first value %.6f\n", embedding.embeddings().to_float32()[0]);
} catch (const oriel::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 1;
}
