import unittest

import agents


class Answers(unittest.TestCase):
    def test_writer(self):
        self.assertTrue(agents.by_name("writer")("small-1").startswith("a text"))

    def test_reviewer(self):
        self.assertTrue(agents.by_name("reviewer")("small-1").startswith("two remarks"))
