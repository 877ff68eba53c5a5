"""A trained speaker encoder as spikes: resemblyzer's LSTM of three layers with its own weights.

    pip download --no-deps resemblyzer
    pip install espeakng-loader
    python benchmarks/speaker.py --wheel Resemblyzer-0.1.4-py3-none-any.whl -o docs/results/speaker.json

The speech is no recording: eSpeak NG, a formant synthesiser, reads sentences of Python's own documentation with many
voices. Codes are fitted on half of the voices and measured on the others, with other sentences. The norm at the
encoder's end, which divides its output by its length, is part of the network.
"""

import argparse
import ctypes
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions

RATE, WINDOW, STEP, MELS, FRAMES = 16_000, 400, 160, 40, 160  # of the encoder: 25 ms every 10 ms, 1.6 s at a time
LANGUAGES, VARIANTS = ("en-us", "en-gb", "de", "fr"), ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4")
CALIBRATING, MEASURING = 4, 16  # sentences of each voice
STEPS, SEED = (12, 8), 0  # of the codes
LONGER = 320  # frames of a sequence longer than all that were seen


class VoiceEncoder(nn.Module):
    """Three layers of LSTM over the frames of a mel spectrogram, a rectified linear map of the last output, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        """mels: [batch, frames, 40]."""
        found = torch.relu(self.linear(self.lstm(mels)[1][0][-1]))
        return found / (found.norm(dim=1, keepdim=True) + 1e-5)


def encoder(wheel: str) -> VoiceEncoder:
    """With the weights that the wheel brings."""
    stored = zipfile.ZipFile(wheel).read("resemblyzer/pretrained.pt")
    model = VoiceEncoder()
    state = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)["model_state"]
    model.load_state_dict({name: value for name, value in state.items() if name in model.state_dict()})
    return model.eval()


class Voices:
    """eSpeak NG."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library, self._heard = ctypes.CDLL(espeakng_loader.get_library_path()), list[NDArray[np.int16]]()
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._hear)
        folder = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate = self._library.espeak_Initialize(2, 0, folder, 0)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, voice: str, text: str) -> NDArray[np.float64]:
        """A sentence, at the encoder's rate, at -30 dB of the full scale."""
        self._heard.clear()
        self._library.espeak_SetVoiceByName(voice.encode())
        self._library.espeak_Synth(text.encode(), len(text) + 1, 0, 0, 0, 1, None, None)
        wave = resample_poly(np.concatenate(self._heard) / 32768, RATE, self.rate)
        return np.asarray(wave * 10 ** (-30 / 20) / np.sqrt((wave**2).mean()))

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def mel_filters() -> NDArray[np.float64]:
    """Triangles between frequencies that are even on Slaney's scale, each of area 1: [mels, frequencies]."""
    low, log_step = 200 / 3, np.log(6.4) / 27  # linear to 1 kHz, then logarithmic
    top = 15 + np.log(RATE / 2 / 1000) / log_step
    marks = np.linspace(0, top, MELS + 2)
    hertz = np.where(marks < 15, low * marks, 1000 * np.exp(log_step * (marks - 15)))
    bins, width = np.fft.rfftfreq(WINDOW, 1 / RATE), np.diff(hertz)
    slopes = hertz[:, None] - bins
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / width[:-1, None], slopes[2:] / width[1:, None]))
    return np.asarray(triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None])


def spectrogram(wave: NDArray[np.float64]) -> Tensor:
    """[frames, mels] of power, as the encoder was trained on."""
    padded = np.pad(wave, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    return torch.from_numpy(power @ mel_filters().T).float()


def sentences(count: int) -> list[str]:
    """Of Python's documentation, long enough to be read for some seconds."""
    text = re.sub(r"\s+", " ", " ".join(topics[name] for name in sorted(topics)))
    found = [one.strip() for one in re.findall(r"(?<=\. )[A-Z][\w ,'()-]{70,180}\.", text)]
    return list(dict.fromkeys(found))[:count]


def spoken(voices: Sequence[str], texts: Sequence[str], frames: int) -> tuple[Tensor, Tensor]:
    """The first frames of what each voice says, no two the same, and the number of the voice."""
    made, each = Voices(), len(texts) // len(voices)
    said = [(at // each, text) for at, text in enumerate(texts[: each * len(voices)])]
    waves = [(number, spectrogram(made.say(voices[number], text))) for number, text in said]
    long = [(number, mels[:frames]) for number, mels in waves if len(mels) >= frames]
    return torch.stack([mels for _, mels in long]), torch.tensor([number for number, _ in long])


def found_again(embeddings: Tensor, voices: Tensor) -> float:
    """The share of utterances, in percent, whose nearest other one is of the same voice."""
    near = nn.functional.cosine_similarity(embeddings[:, None], embeddings[None], dim=2)
    return 100 * float((voices[near.fill_diagonal_(-2).argmax(1)] == voices).float().mean())


def compared(snn: fs.SpikingNetwork, model: nn.Module, mels: Tensor, voices: Tensor) -> dict[str, Any]:
    """A spiking network beside the encoder on speech that neither its codes nor its repair have seen."""
    with torch.inference_mode(), fs.count(snn) as counts:
        wanted, got = model(mels), torch.cat([snn(part) for part in mels.split(64)])
    cosine = nn.functional.cosine_similarity(wanted, got)
    return {
        "utterances": len(mels),
        "frames": mels.shape[1],
        "cosine": round(float(cosine.mean()), 5),
        "least_cosine": round(float(cosine.min()), 5),
        "found_again_ann": round(found_again(wanted, voices), 2),
        "found_again_snn": round(found_again(got, voices), 2),
        "spikes_per_neuron_and_time_step": round(counts.per_neuron_and_time_step, 3),
        "clipped_fraction": counts.clipped_fraction,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", required=True, help="resemblyzer's wheel")
    parser.add_argument("-o", "--output", default="docs/results/speaker.json")
    given = parser.parse_args()
    voices = [f"{language}+{variant}" for variant in VARIANTS for language in LANGUAGES]
    known, others, model = voices[::2], voices[1::2], encoder(given.wheel)
    count = CALIBRATING * len(known)
    texts = sentences(count + MEASURING * len(others))
    seen, _ = spoken(known, texts[:count], FRAMES)
    held, by = spoken(others, texts[count:], FRAMES)
    longer, by_longer = spoken(others, texts[count:], LONGER)
    rows = []
    for k in STEPS:
        for product in ("digital", "gated"):
            snn = fs.convert(model, seen[:1], seen, K=k, circuits={"product": product}, seed=SEED)
            report = snn.report
            rows.append(
                {
                    "K": k,
                    "product": product,
                    "neurons": report.neurons,
                    "latency_steps": report.latency_steps,
                    "steps_per_frame": report.loops[0].steps,
                    "held": compared(snn, model, held, by),
                    "longer": compared(snn, model, longer, by_longer),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    found = {
        "command": "python benchmarks/speaker.py --wheel Resemblyzer-0.1.4-py3-none-any.whl",
        "speech": "synthesised by eSpeak NG; calibrated on half of the voices, measured on the others",
        "calibration_utterances": len(seen),
        "seed": SEED,
        "rows": rows,
        "conditions": conditions(),
    }
    write_json(Path(given.output), found)


if __name__ == "__main__":
    main()
