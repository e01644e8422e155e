#!/usr/bin/env python3
"""Plants one violation at a time in a small tree and expects check_layers to name it."""

import pathlib
import tempfile
import unittest

import check_layers


class CheckLayers(unittest.TestCase):
    def found(self, files):
        """Violations in a tree of {path: text}."""
        with tempfile.TemporaryDirectory() as directory:
            repository = pathlib.Path(directory).resolve()
            for path, text in files.items():
                target = repository / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
            return list(check_layers.violations(repository))

    def test_a_tidy_tree_passes(self):
        self.assertEqual(
            self.found(
                {
                    "include/oriel/a.hpp": "#include <vector>\n#include <oriel/b.hpp>\n",
                    "include/oriel/b.hpp": "#include <cstdint>\n// as in Pixtral\n",
                    "include/oriel/torch.hpp": "#include <ATen/core/Tensor.h>\n",
                    "src/core/error.cpp": '#include "core/error.hpp"\n#include <fmt/format.h>\n',
                    "src/image/resize.cpp": '#include "core/error.hpp"\n/* Qwen\n resizes so */\n',
                    "src/ops/norm.cpp": '#include "kernels.h"\n#include <ATen/ATen.h>\n#include "core/error.hpp"\n',
                    "src/arch/pixtral.cpp": '#include "nn/vit.hpp"\nconst char* name = "pixtral";\n',
                    "src/tower.hpp": '#include "arch/registry.hpp"\n',
                    "src/tower.cpp": '#include "tower.hpp"\n#include "image/resize.hpp"\n',
                    "src/jinja/template.cpp": '#include "core/error.hpp"\n',
                    "src/text/chat.cpp": '#include "nn/block.hpp"\n#include "jinja/template.hpp"\n',
                    "src/chat.cpp": '#include "text/chat.hpp"\n#include "tokenizer/bpe.hpp"\n',
                    "kernels/norm.cu": "#include <cuda_bf16.h>\n",
                }
            ),
            [],
        )

    def expect(self, path, text, message, others=None):
        self.assertEqual(self.found({path: text, **(others or {})}), [f"{path}:{message}"])

    def test_arrows_back_up_are_found(self):
        self.expect(
            "src/core/a.cpp",
            '\n#include "image/resize.hpp"\n',
            "2: core must not include image/resize.hpp: it may see core",
        )
        self.expect(
            "src/nn/vit.cpp",
            '#include "arch/registry.hpp"\n',
            "1: nn must not include arch/registry.hpp: it may see core, image, ops, nn",
        )
        self.expect(
            "src/arch/registry.cpp",
            '#  include "tower.hpp"\n',
            "1: arch must not include tower.hpp: it may see core, image, ops, nn, arch",
            {"src/tower.hpp": ""},
        )

    def test_text_does_not_see_the_public_types(self):
        self.expect(
            "src/text/generator.cpp",
            '#include "tower.hpp"\n',
            "1: text must not include tower.hpp: it may see jinja, tokenizer, core, image, ops, nn, arch, text",
            {"src/tower.hpp": ""},
        )

    def test_languages_stand_on_core_alone(self):
        self.expect(
            "src/jinja/template.cpp",
            '#include "arch/registry.hpp"\n',
            "1: jinja must not include arch/registry.hpp: it may see core, jinja",
        )
        self.expect(
            "src/tokenizer/bpe.cpp",
            '#include "jinja/text.hpp"\n',
            "1: tokenizer must not include jinja/text.hpp: it may see core, tokenizer",
        )
        self.expect(
            "src/arch/foo.cpp",
            '#include "jinja/text.hpp"\n',
            "1: arch must not include jinja/text.hpp: it may see core, image, ops, nn, arch",
        )

    def test_libtorch_below_ops_is_found(self):
        for target in ["ATen/ATen.h", "torch/torch.h", "c10/core/Device.h", "cuda_runtime.h", "cuda.h"]:
            with self.subTest(target):
                self.expect(
                    "src/image/resize.cpp",
                    f"#include <{target}>\n",
                    f"1: image must not include {target}: it knows neither libtorch nor CUDA",
                )

    def test_kernels_called_outside_ops_are_found(self):
        self.expect(
            "src/nn/vit.cpp",
            '#include "kernels.h"\n',
            "1: nn must not include kernels.h: only src/ops calls kernels",
        )

    def test_an_unknown_floor_is_found(self):
        self.expect(
            "src/utils/a.cpp",
            "",
            "1: src/utils is not a floor of the house: core, image, ops, nn, arch, text, tower, jinja, tokenizer",
        )

    def test_public_headers_with_other_includes_are_found(self):
        for include in [
            "<ATen/ATen.h>",
            "<cuda_runtime.h>",
            "<fmt/format.h>",
            "<nlohmann/json.hpp>",
            "<stb_image.h>",
            '"core/error.hpp"',
            "<oriel/missing.hpp>",
            '"vector"',
        ]:
            with self.subTest(include):
                self.expect(
                    "include/oriel/a.hpp",
                    f"#include {include}\n",
                    f"1: a public header must not include {include[1:-1]}: only <standard> and <oriel/...> headers",
                )

    def test_torch_hpp_may_include_aten_and_nothing_more(self):
        self.expect(
            "include/oriel/torch.hpp",
            "#include <ATen/core/Tensor.h>\n#include <fmt/format.h>\n",
            "2: a public header must not include fmt/format.h: only <standard> and <oriel/...> headers",
        )

    def test_model_names_in_code_outside_arch_are_found(self):
        for path in ["src/nn/vit.cpp", "src/tower.cpp", "src/text/tokenizer.cpp", "include/oriel/a.hpp"]:
            with self.subTest(path):
                self.expect(
                    path,
                    '// mistral\nif (type == "Qwen2_vl") {}\n',
                    "2: 'Qwen' is a model's name: only src/arch knows models",
                )

    def test_comment_marks_in_strings_hide_nothing(self):
        self.expect(
            "src/nn/vit.cpp",
            'auto url = "http://x"; int siglip;\nauto raw = R"(// ")"; // llava\n',
            "1: 'siglip' is a model's name: only src/arch knows models",
        )

    def test_kernels_that_need_a_framework_are_found(self):
        for target in ["ATen/ATen.h", "core/error.hpp", "oriel/error.hpp"]:
            with self.subTest(target):
                self.expect(
                    "kernels/norm.cu",
                    f"#include <{target}>\n",
                    f"1: a kernel must not include {target}: kernels need the CUDA toolkit alone",
                )


if __name__ == "__main__":
    unittest.main()
