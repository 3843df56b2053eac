"""The audio tagger of Akiyama & Sato [13] (paper, section 2.2): its clips, its two stages of training, its use."""
