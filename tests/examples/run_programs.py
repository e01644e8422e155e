#!/usr/bin/env python3
"""Runs the programs that ask models about pictures, on the tiny checkpoints: run_programs.py BUILD/examples REPOSITORY

They say what they were asked to, write what they promise, and refuse in one line what they can't do.
"""

import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

PROGRAMS = Path(sys.argv[1]) if len(sys.argv) > 2 else Path()
REPOSITORY = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
FLOWER = REPOSITORY / "assets" / "photos" / "flower.jpg"
FAMILIES = ["gemma3", "mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl"]


def tiny(family):
    return str(REPOSITORY / "assets" / "tiny" / family)


def run(program, *arguments, text=None):
    # The models are too small for more than one thread.
    return subprocess.run(
        [PROGRAMS / program, *map(str, arguments), "--threads", "1"], input=text, capture_output=True, encoding="utf-8", timeout=300
    )


def read_safetensors(path):
    """{name: (dtype, shape, values)}"""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        code = {"I64": "q", "F32": "f"}[entry["dtype"]]
        raw = data[8 + length + begin : 8 + length + end]
        tensors[name] = (entry["dtype"], entry["shape"], struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
    return tensors


def read_png(path):
    """Width, height and RGB bytes of what stb_image_write writes: 8 bits, no interlacing."""
    data = path.read_bytes()
    place, packed = 8, b""
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            packed += body
        place += 12 + length
    raw, rows, above = zlib.decompress(packed), [], bytes(3 * width)
    for y in range(height):
        kind, row = raw[y * (3 * width + 1)], bytearray(raw[y * (3 * width + 1) + 1 : (y + 1) * (3 * width + 1)])
        for i in range(3 * width):
            left, corner = (row[i - 3], above[i - 3]) if i >= 3 else (0, 0)
            guess = left + above[i] - corner
            nearest = min((abs(guess - v), n, v) for n, v in enumerate((left, above[i], corner)))[2]
            row[i] = (row[i] + (0, left, above[i], (left + above[i]) // 2, nearest)[kind]) % 256
        rows.append(bytes(row))
        above = row
    return width, height, rows


def write_png(path, side):
    """A black square."""
    rows = zlib.compress(bytes(1 + side) * side)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


class Programs(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def expect(self, result, code=0):
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def test_every_program_has_help(self):
        for program in ["chat_image", "chat_video", "caption_folder", "ground_objects", "tokenize_text"]:
            result = self.expect(run(program, "--help"))
            for option in ["--model DIR", "--device cpu|cuda[:N]", "--dtype bfloat16|float16|float32", "--threads N"]:
                self.assertIn(option, result.stdout)

    def test_a_question_is_answered_and_dumped(self):
        for family in FAMILIES:
            dump = self.folder / "dump.safetensors"
            result = self.expect(
                run("chat_image", "--model", tiny(family), "--image", FLOWER, "--question", "What is this?",
                    "--max-new-tokens", 12, "--ignore-eos", "--dump", dump, "--prefill-chunk", 50)
            )  # fmt: skip
            tensors = read_safetensors(dump)
            config = json.loads((Path(tiny(family)) / "config.json").read_text())
            vocabulary = config.get("vocab_size") or config["text_config"]["vocab_size"]
            (n,) = tensors["prompt_ids"][1]
            self.assertEqual(
                {name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()},
                {
                    "prompt_ids": ("I64", [n]),
                    "position_ids": ("I64", [3 if family.startswith("qwen") else 1, n]),
                    "logits": ("F32", [n, vocabulary]),
                    "new_ids": ("I64", [12]),
                    "new_logprobs": ("F32", [12]),
                },
            )
            self.assertLess(max(tensors["prompt_ids"][2]), vocabulary, "placeholders, no ids of embeddings")
            last = tensors["logits"][2][-vocabulary:]
            self.assertEqual(tensors["new_ids"][2][0], last.index(max(last)))
            whole = self.expect(
                run("chat_image", "--model", tiny(family), "--image", FLOWER, "--question", "What is this?",
                    "--max-new-tokens", 12, "--ignore-eos")
            )  # fmt: skip
            self.assertEqual(result.stdout, whole.stdout, "chunks make no difference")

    def test_a_text_is_placed_as_it_is(self):
        placeholder = "<|vision_start|><|image_pad|><|vision_end|>"
        arguments = ["chat_image", "--model", tiny("qwen2_vl"), "--max-new-tokens", 4, "--text"]
        self.expect(run(*arguments, placeholder + "What?", "--image", FLOWER))
        self.expect(run(*arguments, "No picture."))
        for text, images in [("What?", 1), (placeholder + placeholder, 1), (placeholder, 2), (placeholder, 0)]:
            result = self.expect(run(*arguments, text, *["--image", FLOWER] * images), 1)
            self.assertRegex(result.stderr, r"^chat_image: .*\b%d\b.*\n$" % images)

    def test_a_chat_template_is_told_what_it_asks_for(self):
        def ask(*arguments, code=0):
            return self.expect(run("chat_image", "--model", tiny("qwen2_vl"), "--image", FLOWER, "--max-new-tokens", 4,
                                   "--question", "What?", *arguments), code)  # fmt: skip

        dumps = [self.folder / name for name in ("plain", "named")]
        ask("--dump", dumps[0])
        ask("--dump", dumps[1], "--template-argument", "add_vision_id=true")
        plain, named = (read_safetensors(dump)["prompt_ids"][2] for dump in dumps)
        self.assertGreater(len(named), len(plain), "Picture 1: ")
        name = "chat_image: template_arguments[\"%s\"]: "
        for argument, message in [
            ("add_vision_ids=true", name % "add_vision_ids" + "the chat template reads no variable of this name\n"),
            ("add_vision_id=yes", name % "add_vision_id" + "expected JSON, got yes\n"),
            ("add_vision_id", "chat_image: --template-argument: expected NAME=JSON, got add_vision_id\n"),
        ]:
            self.assertEqual(ask("--template-argument", argument, code=1).stderr, message)
        twice = ["--template-argument", "add_vision_id=true"] * 2
        self.assertEqual(ask(*twice, code=1).stderr, "chat_image: --template-argument: add_vision_id is given twice\n")

    def test_a_long_picture_is_seen_in_crops(self):
        def ask(family, *arguments, code=0):
            return self.expect(run("chat_image", "--model", tiny(family), "--image", FLOWER, "--max-new-tokens", 1,
                                   "--question", "What?", *arguments), code)  # fmt: skip

        dumps = [self.folder / name for name in ("whole", "crops")]
        ask("gemma3", "--dump", dumps[0])
        ask("gemma3", "--dump", dumps[1], "--crops")
        whole, crops = (read_safetensors(dump)["prompt_ids"][2] for dump in dumps)
        soft = max(set(whole), key=whole.count)
        self.assertEqual((whole.count(soft), crops.count(soft)), (16, 3 * 16))
        self.assertEqual(
            ask("qwen2_vl", "--crops", code=1).stderr,
            f"chat_image: {FLOWER}: Qwen2-VL: this family sees pictures as a whole, without crops\n",
        )

    def test_a_bos_in_a_text_is_doubled_with_a_warning(self):
        dump = self.folder / "dump.safetensors"
        arguments = ["chat_image", "--model", tiny("gemma3"), "--max-new-tokens", 1, "--dump", dump, "--text"]
        result = self.expect(run(*arguments, "<bos>Hello"))
        self.assertRegex(result.stderr, "^warning: --text starts with <bos>")
        doubled = read_safetensors(dump)["prompt_ids"][2]
        result = self.expect(run(*arguments, "Hello"))
        self.assertEqual(result.stderr, "")
        plain = read_safetensors(dump)["prompt_ids"][2]
        self.assertEqual(doubled, (plain[0], *plain))

    def test_what_goes_around_a_prompt_is_transformers(self):
        """With a template "<s> $A </s>": the processor adds all of it to any text=, apply_chat_template nothing to a
        prompt that begins with <s>."""
        model, dump = self.folder / "model", self.folder / "dump.safetensors"
        shutil.copytree(tiny("mistral3"), model)
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        template = tokenizer["post_processor"]
        template["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
        template["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))

        def prompt_ids(*arguments):
            result = self.expect(run("chat_image", "--model", model, "--max-new-tokens", 1, "--dump", dump, *arguments))
            return list(read_safetensors(dump)["prompt_ids"][2]), result.stderr

        plain, told = prompt_ids("--text", "Q")
        self.assertEqual((plain[0], len(plain), plain[-1], told), (1, 3, 2, ""))
        doubled, told = prompt_ids("--text", "<s>Q")
        self.assertEqual(doubled, [1, *plain])
        self.assertEqual(told, "warning: --text starts with <s> and the tokenizer adds it: it stands there twice\n")
        self.assertEqual(json.loads(run("tokenize_text", "--model", model, text='"<s>Q"').stdout), doubled)
        asked, _ = prompt_ids("--question", "Q")
        self.assertEqual((asked[0], asked.count(1), asked.count(2)), (1, 1, 0))

    def test_seeds_decide_draws(self):
        def ask(seed):
            return self.expect(
                run("chat_image", "--model", tiny("pixtral"), "--question", "Tell me.", "--temperature", 1.2, "--seed",
                    seed, "--max-new-tokens", 16, "--ignore-eos")
            ).stdout  # fmt: skip

        self.assertEqual(ask(1), ask(1))
        self.assertNotEqual(ask(1), ask(2))

    def test_a_conversation_reuses_the_cache(self):
        for family in FAMILIES:
            result = self.expect(
                run("chat_image", "--model", tiny(family), "--image", FLOWER, "--max-new-tokens", 6,
                    text="What is this?\n\nAnd that?\n")
            )  # fmt: skip
            told = re.findall(r"^(\d+) tokens of prompt, (\d+) of them reused", result.stderr, re.MULTILINE)
            self.assertEqual(len(told), 2, result.stderr)
            (first, reused_first), (_, reused_second) = [(int(prompt), int(reused)) for prompt, reused in told]
            self.assertEqual(reused_first, 0)
            self.assertGreaterEqual(reused_second, first - 1, "all of the first turn")

    def with_positions(self, family, most):
        """The tiny checkpoint with another max_position_embeddings."""
        directory = self.folder / f"{family}_{most}"
        shutil.copytree(tiny(family), directory)
        config = json.loads((directory / "config.json").read_text())
        config.get("text_config", config)["max_position_embeddings"] = most
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    def test_a_conversation_goes_on_behind_a_question_that_is_too_long(self):
        model = self.with_positions("qwen2_vl", 200)
        long = "long " * 300
        result = self.expect(run("chat_image", "--model", model, "--max-new-tokens", 6, "--ignore-eos",
                                 text=f"{long}\nHello\n{long}\nAgain\n"), 1)  # fmt: skip
        self.assertEqual(
            len(re.findall(r"^no answer, and the question is forgotten: the model takes 200 tokens, got \d+ of the "
                           r"prompt and 6 new ones \(--max-new-tokens\)$", result.stderr, re.MULTILINE)), 2, result.stderr)  # fmt: skip
        self.assertTrue(result.stderr.endswith("\nchat_image: 2 of 4 questions have no answer\n"), result.stderr)
        told = re.findall(r"^(\d+) tokens of prompt, (\d+) of them reused", result.stderr, re.MULTILINE)
        self.assertEqual(len(told), 2, result.stderr)
        self.assertGreaterEqual(int(told[1][1]), int(told[0][0]) - 1, "what was forgotten does not cost the cache")
        # As if it had never been asked.
        without = self.expect(run("chat_image", "--model", model, "--max-new-tokens", 6, "--ignore-eos",
                                  text="Hello\nAgain\n"))  # fmt: skip
        answers = [[line for line in said.stdout.split("\n") if line] for said in (result, without)]
        self.assertEqual(*answers)
        self.assertEqual(len(answers[0]), 2)

    def test_the_room_of_a_conversation_is_the_models(self):
        """More than 8,192 tokens, at once and in the second turn."""
        model = self.with_positions("qwen2_vl", 40000)
        result = self.expect(run("chat_image", "--model", model, "--max-new-tokens", 2, "--ignore-eos",
                                 text="Hello\n" + "a b " * 5000 + "\nAgain\n"))  # fmt: skip
        told = [int(n) for n in re.findall(r"^(\d+) tokens of prompt", result.stderr, re.MULTILINE)]
        self.assertEqual(len(told), 3, result.stderr)
        self.assertGreater(told[1], 8192)
        self.expect(run("chat_image", "--model", model, "--max-new-tokens", 9000, text="Hello\n"))

    def test_frames_are_a_video(self):
        frames = self.folder / "frames"
        frames.mkdir()
        for name in ["notes.txt", "Thumbs.db", ".hidden.jpg"]:
            (frames / name).write_text("no picture")
        for i in range(4):
            shutil.copy(FLOWER, frames / f"{i}.jpg")
        dump = self.folder / "dump.safetensors"
        arguments = ["--frames", frames, "--question", "What happens?", "--max-new-tokens", 8, "--dump", dump]
        positions = {}
        for fps in (2, 24):
            self.expect(run("chat_video", "--model", tiny("qwen2_5_vl"), *arguments, "--fps", fps))
            positions[fps] = read_safetensors(dump)["position_ids"]
        self.assertEqual(positions[2][1], positions[24][1])
        self.assertNotEqual(positions[2][2], positions[24][2], "seconds between frames are positions")
        result = self.expect(run("chat_video", "--model", tiny("gemma3"), *arguments), 1)
        self.assertRegex(result.stderr, r"^chat_video: .*video.*\n$")
        result = self.expect(run("chat_video", "--model", tiny("qwen2_vl"), "--frames", self.folder / "none"), 1)
        self.assertRegex(result.stderr, r"^chat_video: .*none.*\n$")

    def test_a_folder_is_captioned_and_gone_on_with(self):
        pictures, out = self.folder / "pictures", self.folder / "out.jsonl"
        (pictures / "sub").mkdir(parents=True)
        for name in ["b.jpg", "a \"quoted\" ä.JPG", "sub/c.jpg"]:
            shutil.copy(FLOWER, pictures / name)
        (pictures / "broken.png").write_text("no picture")
        (pictures / "notes.txt").write_text("not one either")
        command = ["caption_folder", "--model", tiny("mistral3"), "--out", out, "--jobs", 2, "--max-new-tokens", 5,
                   pictures]  # fmt: skip
        result = self.expect(run(*command))
        self.assertEqual(result.stdout, f"4 pictures, 4 of them new, 1 without a caption: {out}\n")
        self.assertRegex(result.stderr, r"^broken.png: .*\n$")
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual({line["file"] for line in lines}, {"b.jpg", "a \"quoted\" ä.JPG", "sub/c.jpg", "broken.png"})
        self.assertEqual({line["file"] for line in lines if "error" in line}, {"broken.png"})
        self.assertEqual(len({line["caption"] for line in lines if "caption" in line}), 1)
        # Killed while it wrote the third line: a caption is kept, an error and what was cut are tried again.
        whole = out.read_text().splitlines(keepends=True)
        captions = [line for line in whole if '"caption": ' in line]
        (error,) = set(whole) - set(captions)
        out.write_text(error + captions[0] + captions[1][:15])
        result = self.expect(run(*command))
        self.assertEqual(result.stdout, f"4 pictures, 3 of them new, 1 without a caption: {out}\n")
        self.assertEqual(sorted(out.read_text().splitlines(keepends=True)), sorted(whole))
        self.assertEqual(
            self.expect(run(*command)).stdout, f"4 pictures, 1 of them new, 1 without a caption: {out}\n",
            "what had an error is tried again",
        )
        shutil.copy(FLOWER, pictures / "broken.png")
        self.assertEqual(
            self.expect(run(*command)).stdout, f"4 pictures, 1 of them new, 0 without a caption: {out}\n"
        )
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        self.assertEqual(sorted(line["file"] for line in lines if "caption" in line),
                         sorted({"b.jpg", "a \"quoted\" ä.JPG", "sub/c.jpg", "broken.png"}))  # fmt: skip
        self.assertEqual(len(lines), 4)
        self.assertIn("4 pictures, 0 of them new", self.expect(run(*command)).stdout)

    def test_captions_take_the_room_that_their_pictures_need(self):
        """A prompt of more than 8,192 tokens among short ones, which are not disturbed by it."""
        pictures, out = self.folder / "pictures", self.folder / "out.jsonl"
        pictures.mkdir()
        for name in ["a.jpg", "b.jpg", "d.jpg"]:
            shutil.copy(FLOWER, pictures / name)
        write_png(pictures / "c.png", 1400)
        words = " a" * 1000
        tokens = len(json.loads(self.expect(run("tokenize_text", "--model", tiny("qwen2_vl"), text=json.dumps(words))).stdout))
        # The flower has some 350 rows, the other picture 2,500.
        question = " a" * (7000 * 1000 // tokens)
        result = self.expect(run("caption_folder", "--model", tiny("qwen2_vl"), "--out", out, "--jobs", 2,
                                 "--max-new-tokens", 3, "--question", question, pictures))  # fmt: skip
        self.assertEqual(result.stdout, f"4 pictures, 4 of them new, 0 without a caption: {out}\n", result.stderr)
        captions = {line["file"]: line["caption"] for line in map(json.loads, out.read_text().splitlines())}
        self.assertEqual(captions["a.jpg"], captions["d.jpg"])

    def test_boxes_are_drawn_in_the_original_picture(self):
        out = self.folder / "boxes.png"

        def ground(answer):
            return self.expect(
                run("ground_objects", "--model", tiny("qwen2_5_vl"), "--image", FLOWER, "--out", out, "--answer", answer)
            ).stdout  # fmt: skip

        # The model sees 644 x 420 pixels of a picture of 640 x 427.
        answer = '```json\n[{"bbox_2d": [161, 105, 322, 210], "label": "bud"}, {"bbox_2d": [0, 0, 9999, 50]}]\n```'
        self.assertEqual(
            ground(answer),
            f"bud: (160, 107) to (320, 214)\n: (0, 0) to (9937, 51)\n2 boxes drawn: {out}\n",
        )
        width, height, rows = read_png(out)
        self.assertEqual((width, height), (640, 427))
        self.assertEqual(tuple(rows[160][160 * 3 : 160 * 3 + 3]), (230, 25, 75))
        self.assertNotEqual(tuple(rows[160][240 * 3 : 240 * 3 + 3]), (230, 25, 75))
        marked = "<|object_ref_start|>bud<|object_ref_end|><|box_start|>(250,250),(500,500)<|box_end|>"
        self.assertIn("bud: (160, 107) to (320, 214)\n", ground(marked))
        for nothing in ["", "no boxes", '"bbox_2d"', '{"bbox_2d": [1, 2]}', "<|box_start|>", '{"bbox_2d": [1,2,3,4e99]}']:
            self.assertEqual(ground(nothing), f"0 boxes drawn: {out}\n")

    def test_a_trained_model_points_at_what_it_is_asked_for(self):
        model = REPOSITORY / "assets" / "demo" / "qwen2_vl"
        scenes, out = self.folder / "scenes", self.folder / "boxes.png"
        drawn = subprocess.run(
            [PROGRAMS / "draw_scenes", "--seed", "79", "--count", "3", "--kind", "where", "--boxes", "--output", scenes],
            capture_output=True, encoding="utf-8", check=True,
        ).stdout  # fmt: skip
        for case in map(json.loads, drawn.splitlines()):
            picture = scenes / case["pictures"][0]
            result = self.expect(
                run("ground_objects", "--model", model, "--image", picture, "--question", case["question"], "--out", out)
            )
            found = re.match(r"the (.*): \((\d+), (\d+)\) to \((\d+), (\d+)\)\n1 boxes drawn: ", result.stdout)
            self.assertTrue(found, result.stdout)
            self.assertIn(found.group(1), case["question"])
            box = [int(side) for side in found.groups()[1:]]
            # The mean over 50 scenes is a matter of tests/demo; here the box is about where the object is.
            for side, right in zip(box, case["boxes"][0]):
                self.assertLess(abs(side - right), 20, f"{case['question']} {box}, not {case['boxes'][0]}")
            before, after = read_png(picture), read_png(out)
            self.assertEqual(before[:2], after[:2])
            changed = [
                (x, y)
                for y, (a, b) in enumerate(zip(before[2], after[2]))
                for x in range(before[0])
                if a[3 * x : 3 * x + 3] != b[3 * x : 3 * x + 3]
            ]
            self.assertEqual(min(x for x, _ in changed), box[0])
            self.assertEqual(max(x for x, _ in changed), min(box[2], before[0] - 1))
            self.assertEqual(min(y for _, y in changed), box[1])
            self.assertEqual(max(y for _, y in changed), min(box[3], before[1] - 1))

    def test_text_becomes_ids_and_ids_become_text(self):
        def ids(family, texts, *options):
            lines = "".join(json.dumps(text, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(texts))
            result = self.expect(run("tokenize_text", "--model", tiny(family), *options, text=lines))
            return [json.loads(line) for line in result.stdout.splitlines()]

        texts = ["", "What is this?", "<s><bos><|im_start|>[IMG]<image_soft_token>", "a\0b", "\0", "\u4f60\u597d \U0001f600\n\t\"\\"]
        for family in FAMILIES:
            tokenizer = json.loads((Path(tiny(family)) / "tokenizer.json").read_text())
            special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
            unknown = {token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<unk>"}
            whole, inside = ids(family, texts), ids(family, texts, "--no-special-tokens")
            plain = ids(family, texts, "--plain", "--no-special-tokens")
            added = len(whole[0])
            self.assertEqual([row[added:] for row in whole], inside)
            self.assertTrue(special & set(inside[2]), "recognised")
            self.assertFalse((special - unknown) & {token for row in plain for token in row}, "data")
            self.assertEqual([row[:added] for row in ids(family, texts, "--plain")], [row[:added] for row in whole])
            self.assertEqual(ids(family, plain, "--decode"), texts)
            self.assertEqual(ids(family, inside, "--decode"), texts)
            self.assertEqual(ids(family, inside[2:3], "--decode", "--no-special-tokens")[0].count("[IMG]"),
                             0 if family in ("mistral3", "pixtral") else 1)  # fmt: skip
        both = ids("qwen2_vl", texts)
        self.assertEqual(ids("qwen2_vl", texts, "--device", "cuda:3", "--dtype", "float16"), both)

    def test_a_line_that_is_no_json_is_named(self):
        for options, lines, message in [
            ([], '"good"\nbad\n', "line 2: column 1: expected a string"),
            ([], '"a\tb"\n', "line 1: column 4: expected an escape, found a control character"),
            ([], '"a"b\n', "line 1: column 4: expected the line's end"),
            ([], '"a\n', "line 1: column 3: expected more, found the line's end"),
            ([], '"\\ud800"\n', "line 1: column 8: expected the second half of a surrogate pair"),
            (["--decode"], "[1, x]\n", "line 1: column 5: expected an integer"),
            (["--decode"], "[1\n", "line 1: column 3: expected more, found the line's end"),
            (["--decode"], "[99999999999999999999]\n", "line 1: column 20: expected an integer of 64 bits"),
            (["--device", "tpu"], "", 'device: expected "cpu", "cuda" or "cuda:N", got "tpu"'),
            (["--dtype", "int8"], "", "--dtype: expected bfloat16|float16|float32, got int8"),
        ]:
            result = self.expect(run("tokenize_text", "--model", tiny("qwen2_vl"), *options, text=lines), 1)
            self.assertEqual(result.stderr, f"tokenize_text: {message}\n")
        result = self.expect(run("tokenize_text", "--model", tiny("qwen2_vl"), text='"good"\nbad\n'), 1)
        self.assertEqual(len(result.stdout.splitlines()), 1, "what came before it is there")

    def test_what_can_not_be_done_is_one_line(self):
        for arguments, pattern in [
            (["--model", tiny("siglip"), "--question", "What?"], "siglip"),
            (["--model", tiny("gemma3"), "--question", "a", "--text", "b"], "--text"),
            (["--model", tiny("gemma3"), "--question", "a", "--max-new-tokens", 10**9], "and 1000000000 new ones"),
            (["--model", tiny("gemma3"), "--question", "a", "--max-new-tokens", 2**63 - 1],
             "the model takes 131072 tokens, got [0-9]+ of the prompt and 9223372036854775807 new ones"),
            (["--model", tiny("gemma3"), "--question", "a", "--max-new-tokens", 0], "max_new_tokens"),
            (["--model", tiny("gemma3"), "--question", "a", "--temperature", -1], "temperature"),
            (["--model", tiny("gemma3"), "--question", "a", "--prefill-chunk", 0], "prefill_chunk"),
            (["--model", tiny("gemma3"), "--question", "a", "--image", "none.jpg"], "none.jpg"),
            (["--model", tiny("gemma3"), "--dump", "x"], "--dump"),
        ]:
            result = self.expect(run("chat_image", *arguments, text=""), 1)
            self.assertRegex(result.stderr, rf"^chat_image: .*{pattern}.*\n$")
            self.assertEqual(result.stdout, "")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
