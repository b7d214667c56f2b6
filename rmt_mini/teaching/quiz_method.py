"""What the quiz asks about lessons 0 to 6: the method, mechanism by mechanism."""

from __future__ import annotations

from rmt_mini.teaching.question import Question

ABOUT_THE_METHOD: tuple[Question, ...] = (
    Question(
        lesson=0,
        name="The source of questions",
        asks=(
            "Post-training by reinforcement needs questions with known answers. What does reinforcement "
            "mid-training need?"
        ),
        options=(
            "Questions, but with answers of any quality",
            "Plain text: its own next tokens are the answers",
            "Text in which people have marked the hard tokens",
            "A second model that judges each thought",
        ),
        right=1,
        why=(
            "There are no written questions at all; a position of a text is the question.",
            "At every position the text itself says which token comes next, so it checks the answer.",
            "Nothing is marked by people; how hard a token is, the model's own entropy says.",
            "No one judges thoughts. A thought is worth what the answer behind it and its length earn.",
        ),
    ),
    Question(
        lesson=0,
        name="Right but long",
        asks=(
            "r = (1 - w) * match + w * length reward, with w = 0.3 and a budget of 10 tokens. Order these by "
            "reward: (a) right after 20 tokens, (b) right after 5 tokens, (c) wrong after 10 tokens."
        ),
        options=(
            "b > c > a",
            "c > b > a",
            "a = b > c",
            "b > a > c",
        ),
        right=3,
        why=(
            "(a) loses all of its length reward, but keeps 0.7 for being right; (c) has 0.3 at most.",
            "Keeping to the budget does not make up for being wrong here: 0.3 against 0.85 and 0.7.",
            (
                "Right answers differ by their lengths: 5 of 10 tokens earn half of the length reward, 20 "
                "earn none of it."
            ),
            "(b) earns 0.7 + 0.3 * 0.5 = 0.85, (a) 0.7 + 0 = 0.7, (c) 0 + 0.3 = 0.3.",
        ),
    ),
    Question(
        lesson=1,
        name="Byte by byte",
        asks=(
            'The text goes on with "naïve", in two tokens: "na" and "ïve". Which answer does byte prefix match accept?'
        ),
        options=(
            '"naï"',
            '"na"',
            '"naive"',
            '"naïves"',
        ),
        right=1,
        why=(
            'Its bytes agree with the text, but they end inside the token "ïve".',
            "Its two bytes begin the rest of the text and end where a token ends.",
            '"i" and "ï" are different bytes, even in number.',
            "It is longer than what stands in the text, so it is not its beginning.",
        ),
    ),
    Question(
        lesson=1,
        name="A rule left out",
        asks=(
            "Someone drops the rule that an answer must end where a token ends, so that any beginning of the "
            "text is right. What does a policy learn from this reward, on English text?"
        ),
        options=(
            "To answer several tokens at once, which are worth more",
            "To answer as before, only sooner",
            "To answer with one space nearly always",
            "Nothing, since all answers become right",
        ),
        right=2,
        why=(
            "A longer answer can only go wrong in more places; the shortest one that fits is the safest.",
            "The reward now has a way to be earned without knowing the word. Optimizers find such ways.",
            (
                "Most tokens begin with a space, so a space alone is a right beginning. Accuracy rises, "
                "knowledge does not."
            ),
            "A wrong first letter is still wrong. But a space, which begins most tokens, is nearly always right.",
        ),
    ),
    Question(
        lesson=2,
        name="Which is less decided?",
        asks="Which next-token distribution has the highest entropy?",
        options=(
            "Two at 50 % each, and nothing else at all",
            "One at 60 %, one at 39 %, one at 1 %",
            "One at 80 %, five others at 4 % each",
            "One at 95 %, one at 5 %",
        ),
        right=2,
        why=(
            "log 2 = 0.69 nats. It is the least certain about the first choice, but there are two candidates only.",
            "0.72 nats: little more than a coin.",
            (
                "0.82 nats. It is right four times in five, and counts as less decided than a coin: the small"
                " ones add up."
            ),
            "0.20 nats: nearly decided.",
        ),
    ),
    Question(
        lesson=2,
        name="Sure and wrong",
        asks=(
            "At the tokens of a sentence that a model has never read, its entropy is 0.1 nats and its answer "
            "is wrong every time. What does the curriculum, with thresholds of 0.5 and 1.9 nats, make of "
            "them?"
        ),
        options=(
            "Hard: the model gets them wrong",
            "Easy: entropy is what the model believes",
            "Impossible: low entropy means a right answer",
            "Medium: wrong answers and low entropy cancel",
        ),
        right=1,
        why=(
            (
                "Being wrong shows in the loss. Tiers are cut by entropy alone, which does not look at the "
                "text's next token."
            ),
            "Low entropy says that the model is sure. Whether it is right, only the text says.",
            (
                "Entropy is computed without the true token. Untrained models are often sure and wrong about "
                "new sentences."
            ),
            "Only one number is looked at, the entropy.",
        ),
    ),
    Question(
        lesson=3,
        name="Half way",
        asks="B_0 = 100, gamma = 0.25, B_min = 1. What is the budget half way through the run?",
        options=(
            "62 tokens",
            "25 tokens",
            "75 tokens",
            "50 tokens",
        ),
        right=3,
        why=(
            "That is the average of 100 and 25. The budget falls by a constant factor, not by a constant number.",
            "That is the budget at the last step: B_0 * gamma.",
            "gamma is what is left at the end, not what is taken away.",
            (
                "100 * 0.25 ** 0.5 = 50, the geometric mean of its ends: as large a factor before the middle "
                "as behind it."
            ),
        ),
    ),
    Question(
        lesson=3,
        name="All wrong",
        asks=(
            "All eight rollouts of a group are wrong, their thoughts differ in length, and the length reward "
            "is the paper's (w above 0). What does the group teach?"
        ),
        options=(
            "Nothing: all answers earn the same, which is nothing",
            "To keep to the budget, and nothing about the answer",
            "To answer something else than these eight",
            "To think longer next time, since all of these answers were wrong",
        ),
        right=1,
        why=(
            "They earn the same match reward, 0, but not the same total: their lengths differ.",
            (
                "Length is all in which their rewards differ, at any w above 0. length_if_correct, a "
                "departure, makes it silent."
            ),
            "Advantages compare with the group's mean, so a wrong answer of the right length is even pushed up.",
            "Nothing ties longer thoughts to right answers here; what is rewarded is the distance from the budget.",
        ),
    ),
    Question(
        lesson=4,
        name="On the slope",
        asks=(
            "p_early is 60 % easy, 30 % medium, 10 % hard; p_late is 20, 30, 50 %. t1 is 30 % and t2 is 70 % "
            "of 100 steps. How likely is an easy tier at step 40?"
        ),
        options=(
            "44 %",
            "40 %",
            "50 %",
            "60 %",
        ),
        right=2,
        why=(
            "That counts 40 % of the way. The slope begins at step 30, not at step 0.",
            "That is half of the way; it is reached at step 50.",
            "Step 40 is a quarter of the way from 30 to 70: 60 - (60 - 20) / 4 = 50.",
            "That holds until step 30, where the change begins.",
        ),
    ),
    Question(
        lesson=4,
        name="An empty tier",
        asks=(
            "p_t is 50 % easy, 30 % medium, 20 % hard, but the documents of this step hold no easy position. "
            "How likely is a draw from medium, in this package?"
        ),
        options=(
            "30 %",
            "55 %",
            "50 %",
            "60 %",
        ),
        right=3,
        why=(
            "Then half of all draws would go nowhere.",
            "That deals out the 50 % evenly. It is dealt out in proportion: 30 to 20.",
            "That would hold if the two tiers were alike; they keep their proportion.",
            "30 / (30 + 20). The paper does not say what happens then; in proportion is the choice made here.",
        ),
    ),
    Question(
        lesson=5,
        name="One in four",
        asks="Of a group's four rollouts one is right: rewards 1, 0, 0, 0. How do their advantages compare?",
        options=(
            "The right one's is three times each wrong one's, with the other sign",
            "The right one's is 1, the wrong ones' are 0: they have earned nothing",
            "All four are equally large; only the sign differs",
            "All are positive or 0, since no reward was negative, the right one's the most of all",
        ),
        right=0,
        why=(
            (
                "0.75 against -0.25 before the division, 1.73 against -0.58 after it: they sum to 0, and "
                "three share the minus."
            ),
            "An advantage is a reward against the group's mean, which is 0.25 here. Wrong ones fall below it.",
            "That holds for two right and two wrong. Here three have to balance one.",
            (
                "The sign is that of reward minus mean. Without negative rewards there are negative "
                "advantages all the same."
            ),
        ),
    ),
    Question(
        lesson=5,
        name="Mean and groups",
        asks=(
            "In a pre-flight a tier's pass rate is 50 %. For G = 8 the formula 1 - p^8 - (1 - p)^8 promises a"
            " signal in 99 % of the groups; 20 % were counted. What is the likely reason?"
        ),
        options=(
            "The formula holds for large groups only",
            "The rewards were divided by their deviation",
            "The pass rate was measured on far too few rollouts",
            "Most positions are always or never right",
        ),
        right=3,
        why=(
            "It holds for any G, for a position whose pass rate is p.",
            "That changes the size of advantages, never whether a group's rewards differ.",
            "Then 50 % would be uncertain, but no pass rate anywhere near it gives so few.",
            (
                "50 % on average may be half of the positions at 100 % and half at 0 %, and such groups "
                "agree. Count groups."
            ),
        ),
    ),
    Question(
        lesson=5,
        name="A loss of nothing",
        asks="The RL loss is about 0 from the first step on, while the reward climbs. What should be done?",
        options=(
            "Nothing: its value says little; watch reward, signal and gradient norm",
            "Raise the learning rate until the loss moves",
            "Leave out the subtraction of the mean, which is what makes it 0 at every step",
            "Stop: with a loss of 0 there is no gradient, and the reward is luck",
        ),
        right=0,
        why=(
            "Advantages of a group sum to 0, so with ratio 1 the value is about 0 while its gradient is not.",
            "The policy is learning already, as the reward shows. The loss would stay near 0.",
            "The mean is the yardstick; without it right and wrong rollouts would be pushed the same way.",
            "A value of 0 is not a gradient of 0: log-probabilities with weights that cancel still pull apart.",
        ),
    ),
    Question(
        lesson=5,
        name="The clip",
        asks=(
            "epsilon is 0.2. A token has become half as likely again as when it was sampled (ratio 1.5). Its "
            "advantage is -1. And now?"
        ),
        options=(
            "It is clipped: the ratio lies outside 0.8 .. 1.2",
            "It is not clipped: it is pushed down without limit",
            "It is pushed up, since it became likelier",
            "It is pushed down, but only as if the ratio were 1.2",
        ),
        right=1,
        why=(
            "Outside, but on the wrong side: for A < 0 the clip holds below 0.8.",
            "min(1.5 * -1, 1.2 * -1) = -1.5, the unclipped one: a bad token that became likelier keeps its gradient.",
            "The sign of the push is the advantage's: down.",
            "min takes the lower of -1.5 and -1.2, and that is the unclipped -1.5.",
        ),
    ),
    Question(
        lesson=6,
        name="Who takes the next-token loss?",
        asks=(
            "A document has 12 tokens; positions 3, 7 and 9 are chosen for reinforcement. How many tokens "
            "take the next-token loss?"
        ),
        options=(
            "12",
            "9",
            "8",
            "3",
        ),
        right=2,
        why=(
            "The chosen ones would then be told by prediction what thinking is to find.",
            "One more has no loss: nothing stands before token 0 from which it could be predicted.",
            "12 - 3 chosen - token 0.",
            "These three are the ones that take no next-token loss.",
        ),
    ),
    Question(
        lesson=6,
        name="Cut off",
        asks=(
            "A thought of n tokens ran into its cap and was closed by the environment; then the cue was "
            "written and one answer token sampled. How many tokens of the branch take the RL loss?"
        ),
        options=(
            "n + 2",
            "n + 1",
            "n",
            "All of the branch",
        ),
        right=1,
        why=(
            "That is for a thought that the model closed itself: then the closing is its own decision.",
            "The thought and the answer: what was sampled. The closing was not the model's choice.",
            "The answer was sampled too, and is what the match reward speaks of.",
            (
                "Opening, cue and here the closing were written for the model; it can be neither praised nor "
                "blamed for them."
            ),
        ),
    ),
)
