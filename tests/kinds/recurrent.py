"""Networks that read step by step."""

import torch
import torch.nn.functional as F
from torch import nn

from kinds.kind import Kind, normal, numbers


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 8, 2, dropout=0.2, batch_first=True)
        self.decoder = nn.Linear(8, 20)

    def forward(self, words):
        y, _ = self.lstm(self.embedding(words))
        return self.decoder(y)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.gru = nn.GRU(6, 5, bidirectional=True)
        self.tags = nn.Linear(10, 4)

    def forward(self, words):
        y, _ = self.gru(self.embedding(words).transpose(0, 1))
        return self.tags(F.relu(y)).transpose(0, 1)


class SpeechRecogniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(8, 10, 3, stride=2, padding=1), nn.BatchNorm1d(10)
        self.rnns = nn.ModuleList([nn.GRU(10, 5, batch_first=True, bidirectional=True) for _ in range(2)])
        self.out = nn.Linear(10, 6)

    def forward(self, sound):
        y = F.hardtanh(self.norm(self.conv(sound)), 0, 20).transpose(1, 2)
        for rnn in self.rnns:
            y = y + rnn(y)[0]
        return self.out(y)


class TimeSeries(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 6, batch_first=True), nn.LSTMCell(1, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        h, c = (state[0] for state in self.encoder(x)[1])
        y, found = x[:, -1, :1], []
        for _ in range(3):
            h, c = self.decoder(y, (h, c))
            y = self.head(h)
            found.append(y)
        return torch.cat(found, 1)


class Crnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
        self.rnn, self.head = nn.RNN(6 * 4, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, picture):
        y = self.features(picture).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(y)[0])


KINDS = (
    Kind("language_model", "BH", LanguageModel, numbers(20, (7,))),
    Kind("tagger", "BH", Tagger, numbers(20, (7,))),
    Kind("speech_recogniser", "H", SpeechRecogniser, normal((8, 12))),
    Kind("time_series", "H", TimeSeries, normal((6, 3))),
    Kind("crnn", "H", Crnn, normal((1, 8, 16))),
)
