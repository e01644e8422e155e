// inspect_model: what a checkpoint directory holds of a vision tower, and what pictures will cost.
#include <algorithm>
#include <string>
#include <vector>

#include "command_line.hpp"

namespace {

struct Arguments {
  std::string model;
  std::vector<std::string> sizes{"336x336", "1024x768", "1920x1080", "4000x3000"};
  bool tensors = false;
};

oriel::Size parse_size(const std::string& text) {
  long long width = 0;
  long long height = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld%c", &width, &height, &rest) != 2)
    throw std::invalid_argument("--size: expected WIDTHxHEIGHT, got " + text);
  return {width, height};
}

std::string shape_to_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t side : shape) text += (text.empty() ? "" : " x ") + std::to_string(side);
  return text;
}

void print_tensors(const char* title, const std::vector<oriel::ReportedTensor>& tensors) {
  std::printf("%s\n", title);
  for (const oriel::ReportedTensor& tensor : tensors)
    std::printf("  %-5s %-18s %s\n", tensor.dtype.c_str(), shape_to_text(tensor.shape).c_str(), tensor.name.c_str());
}

void print_plans(const oriel::VisionTower& tower, const std::vector<std::string>& sizes) {
  std::printf("\n%14s %14s %8s %14s %12s %12s %12s\n", "picture", "resized to", "tokens", "prompt tokens", "pixels",
              "working", "rows");
  for (const std::string& text : sizes) {
    const oriel::Size size = parse_size(text);
    try {
      const oriel::ImagePlan plan = tower.plan(size);
      std::printf("%14s %14s %8lld %14lld %12s %12s %12s\n", to_text(size).c_str(), to_text(plan.resized).c_str(),
                  static_cast<long long>(plan.tokens), static_cast<long long>(plan.prompt_tokens),
                  bytes_to_text(plan.pixel_bytes).c_str(), bytes_to_text(plan.working_bytes).c_str(),
                  bytes_to_text(plan.embedding_bytes).c_str());
    } catch (const oriel::Error& error) {
      if (error.code() != oriel::ErrorCode::unsupported_image) throw;
      std::printf("%14s %s\n", to_text(size).c_str(), error.what());
    }
  }
}

void inspect(const Arguments& arguments) {
  const oriel::ModelReport report = oriel::inspect_model(arguments.model);
  const oriel::VisionTower tower = oriel::VisionTower::load(arguments.model, {.weights = false});
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  std::printf("family        %s (model_type %s)\n", report.family.c_str(), report.model_type.c_str());
  std::printf("transformer   %lld blocks, width %lld\n", number(tower.depth()), number(tower.width()));
  std::printf("rows          %lld columns\n", number(tower.hidden_size()));
  std::printf("patches       %lld pixels, %lld x %lld of them a row\n", number(tower.patch_size()),
              number(tower.merge_size()), number(tower.merge_size()));
  std::printf("pixel limits  %s\n", tower.has_pixel_limits() ? "yes (--min-pixels, --max-pixels)" : "none");
  std::printf("video         %s\n", tower.has_video() ? "yes" : "no");
  std::printf("tensors       %zu found (%s), %zu missing, %zu unfit, %zu not needed\n", report.found.size(),
              bytes_to_text(report.weight_bytes).c_str(), report.missing.size(), report.mismatched.size(),
              report.unused.size());
  for (const std::string& name : report.missing) std::printf("  missing  %s\n", name.c_str());
  for (const std::string& text : report.mismatched) std::printf("  unfit    %s\n", text.c_str());
  if (arguments.tensors) {
    print_tensors("found:", report.found);
    print_tensors("not needed:", report.unused);
  }
  print_plans(tower, arguments.sizes);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Shows what a Hugging Face checkpoint directory holds of a vision tower, without reading its tensors.",
               "inspect_model"};
  Arguments arguments;
  app.add_option("model", arguments.model, "checkpoint directory")->required()->type_name("DIR");
  app.add_option("--size", arguments.sizes, "picture sizes to plan for")->type_name("WIDTHxHEIGHT");
  app.add_flag("--tensors", arguments.tensors, "list every tensor");
  return run_program(app, argc, argv, [&] { inspect(arguments); });
}
