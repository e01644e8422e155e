// Equal fingerprints and equal pixels mean equal rows: whatever changes rows has to change the fingerprint.
#include <set>

#include "tower/checkpoints.hpp"

namespace oriel {
namespace {

TEST(Fingerprint, IsTheSameWhereverTheCheckpointLies) {
  for (const std::string& name : tiny_names) {
    const Scratch scratch(name);
    EXPECT_EQ(scratch.load().fingerprint(), load_tiny(name).fingerprint()) << name;
  }
}

TEST(Fingerprint, TellsCheckpointsAndDtypesApart) {
  std::set<std::string> seen;
  for (const std::string& name : tiny_names)
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16})
      EXPECT_TRUE(seen.insert(load_tiny(name, {.dtype = dtype}).fingerprint().to_string()).second) << name;
}

TEST(Fingerprint, SeesOneBitOfAnyWeight) {
  const Scratch scratch("pixtral");
  const std::vector<StoredTensor> original = scratch.tensors();
  std::set<std::string> seen{scratch.load().fingerprint().to_string()};
  for (size_t i = 0; i < original.size(); ++i) {
    std::vector<StoredTensor> changed = original;
    changed[i].bytes[changed[i].bytes.size() / 2] ^= std::byte{1};
    scratch.write_tensors(changed);
    const std::string fingerprint = scratch.load().fingerprint().to_string();
    if (original[i].name.starts_with("language_model."))
      EXPECT_TRUE(seen.contains(fingerprint)) << original[i].name << " is none of the tower's weights";
    else
      EXPECT_TRUE(seen.insert(fingerprint).second) << original[i].name;
  }
  EXPECT_GT(seen.size(), 30U);
}

TEST(Fingerprint, SeesConfigAndProcessor) {
  const Scratch scratch("pixtral");
  const ContentHash before = scratch.load().fingerprint();
  scratch.replace("config.json", "10000.0", "10001.0");
  const ContentHash other_theta = scratch.load().fingerprint();
  EXPECT_NE(other_theta, before);
  scratch.replace("preprocessor_config.json", "1024", "1008");
  EXPECT_NE(scratch.load().fingerprint(), other_theta);
}

}  // namespace
}  // namespace oriel
