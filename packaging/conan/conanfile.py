"""oriel as a Conan 2 package, built from the checkout in which this recipe lies:

conan create packaging/conan -o "oriel/*:torch_dir=<libtorch>" --build=missing

libtorch does not come from Conan: oriel is exact with one version of it, and links the files that PyPI's torch wheel or
pytorch.org's archive holds. `torch_dir` is the folder with its include/ and lib/; it is part of the package's id.
"""

import os

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy

required_conan_version = ">=2.0"


class OrielConan(ConanFile):
    name = "oriel"
    version = "0.1.0"
    description = "The image half of vision-language models: a picture goes in, the rows that a language model reads come out"
    license = "MIT"
    topics = ("vision-language-models", "image-preprocessing", "embeddings")
    package_type = "library"
    settings = "os", "arch", "compiler", "build_type"
    options = {
        "shared": [True, False],
        "torch_dir": ["ANY"],
        "cuda": [True, False],
        "with_libjpeg_turbo": [True, False],
        "with_libwebp": [True, False],
    }
    default_options = {
        "shared": False,
        "torch_dir": "",
        "cuda": False,
        "with_libjpeg_turbo": True,
        "with_libwebp": True,
        "fmt/*:header_only": True,
    }

    def export_sources(self):
        checkout = os.path.join(self.recipe_folder, "..", "..")
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "src/*", "kernels/*"):
            copy(self, pattern, checkout, self.export_sources_folder)

    def requirements(self):
        # Headers that stay inside oriel.
        for header_only in ("fmt/[>=9 <13]", "nlohmann_json/[>=3.11 <4]", "stb/[>=cci.20220909]", "xxhash/[>=0.8 <1]"):
            self.requires(header_only, visible=False)
        # A program with liboriel.a links these too.
        self.requires("zlib/[>=1.2.11 <2]")
        self.requires("pcre2/[>=10.40 <11]")
        if self.options.with_libjpeg_turbo:
            self.requires("libjpeg-turbo/[>=2.1 <4]")
        if self.options.with_libwebp:
            self.requires("libwebp/[>=1.2 <2]")

    def validate(self):
        check_min_cppstd(self, 20)
        if self.settings.os != "Linux":
            raise ConanInvalidConfiguration("oriel is built on Linux only")
        torch = str(self.options.torch_dir)
        if not os.path.isdir(os.path.join(torch, "lib")):
            raise ConanInvalidConfiguration(
                f"option torch_dir: expected the folder with libtorch's include/ and lib/, found '{torch}'"
            )

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["ORIEL_TORCH_DIR"] = str(self.options.torch_dir)
        toolchain.cache_variables["ORIEL_CUDA"] = bool(self.options.cuda)
        toolchain.cache_variables["ORIEL_WITH_LIBJPEG_TURBO"] = bool(self.options.with_libjpeg_turbo)
        toolchain.cache_variables["ORIEL_WITH_LIBWEBP"] = bool(self.options.with_libwebp)
        for name in ("ORIEL_BUILD_TESTS", "ORIEL_BUILD_EXAMPLES", "ORIEL_WARNINGS_AS_ERRORS"):
            toolchain.cache_variables[name] = False
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build(target="oriel")

    def package(self):
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        CMake(self).install()

    def package_info(self):
        # The package files that oriel installs are the truth; Conan makes none of its own beside them.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "oriel")]
        self.cpp_info.libs = ["oriel"]
        if not self.options.shared:
            self.cpp_info.libdirs.append(os.path.join(str(self.options.torch_dir), "lib"))
            self.cpp_info.system_libs = ["torch_cpu", "c10", "pthread"]
            if self.options.cuda:
                # They register their operators when they are loaded; nothing refers to them by symbol.
                self.cpp_info.exelinkflags = ["-Wl,--no-as-needed"]
                self.cpp_info.system_libs += ["torch_cuda", "c10_cuda"]
