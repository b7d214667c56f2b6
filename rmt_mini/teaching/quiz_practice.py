"""What the quiz asks about lessons 7 to 12: the machine, the study, and what goes wrong."""

from __future__ import annotations

from rmt_mini.teaching.question import Question

ABOUT_PRACTICE: tuple[Question, ...] = (
    Question(
        lesson=7,
        name="Tokens of a tree",
        asks=(
            "A document of 60 tokens, positions at 30 and 50, 3 rollouts at each, 10 tokens a branch. How "
            "many tokens does the document tree read?"
        ),
        options=(
            "120",
            "360",
            "80",
            "420",
        ),
        right=0,
        why=(
            "60 for the trunk, read once, and 2 * 3 * 10 for the branches.",
            "These are rows without padding: 3 * 40 + 3 * 60 + 60.",
            "Six branches hang on it, not two: every rollout has one of its own.",
            "These are rows padded to the longest: 6 * 60 + 60.",
        ),
    ),
    Question(
        lesson=7,
        name="Where the instruction stands",
        asks=(
            "Why does the stated budget stand in the branch, behind the text, and not before the text as in the paper?"
        ),
        options=(
            "Models follow an instruction better at the end",
            "So that all branches share one trunk, whatever their budgets",
            "So that the next-token loss does not train on it",
            "Because position ids must begin at 0 in the document",
        ),
        right=1,
        why=(
            "Perhaps, or perhaps not: that has not been measured.",
            (
                "Whatever stands before the text changes how all of the text is read. Only what never differs"
                " can be shared."
            ),
            "A mask would do for that, wherever it stands.",
            "They could begin anywhere; a trunk that differs could still not be shared.",
        ),
    ),
    Question(
        lesson=8,
        name="A falling reward",
        asks="From 30 % to 70 % of a run with a curriculum, the match reward falls. Has the model become worse?",
        options=(
            "Yes: the match reward is measured at each step",
            "Yes, if the loss falls as well",
            "No: rewards always fall when the budget does, by just as much",
            "It cannot be told: the positions became harder too",
        ),
        right=3,
        why=(
            "It is measured at the positions of each step, and these change as the curriculum moves.",
            "The RL loss says little by its value, and nothing about accuracy.",
            "A smaller budget may cost right answers or not; it is no law.",
            "The same model would score lower on later draws. Held-out positions that never change can tell.",
        ),
    ),
    Question(
        lesson=8,
        name="Too short, too soon",
        asks=(
            "B_0 is 6 and gamma 0.2, though this model's shortest sound calculation takes 8 tokens. Thoughts "
            "shrink as told, and right answers vanish. Why does the match reward not pull back?"
        ),
        options=(
            "The match reward does not count as much as the length reward",
            "The optimizer's learning rate is too small",
            "All rollouts of such a group are cut off and wrong alike",
            "Next-token prediction holds the thoughts short",
        ),
        right=2,
        why=(
            "With w below 1/2 it counts for more, wherever some rollout of a group is right.",
            "A larger one would follow the same rewards, faster.",
            (
                "Where no rollout is right, match rewards do not differ, and what does not differ teaches "
                "nothing. Hence B_min."
            ),
            "It trains on the text outside of C; it never sees a thought.",
        ),
    ),
    Question(
        lesson=9,
        name="The missing row",
        asks=(
            "Without the NTP loss the paper's RMT falls from 46.87 to 33.84 %. Which further row would tell "
            "whether thinking or reading the new text makes the gain?"
        ),
        options=(
            "RMT with twice the NTP weight",
            "Next-token prediction alone, at equal steps and compute",
            "RMT without NTP, with more seeds",
            "RMT without both NTP and budget",
        ),
        right=1,
        why=(
            "It has both parts still; whatever it shows, either could have made it.",
            (
                "If it does as well, the text did the work. The paper has no such row; here NTP alone does "
                "better than RMT."
            ),
            "More seeds make the same number surer. The question is what the other part does by itself.",
            "It takes away more, and says still less about what reading alone would give.",
        ),
    ),
    Question(
        lesson=9,
        name="Overlapping intervals",
        asks=(
            "Two arms answered the same positions: 49 % [43, 55] and 54 % [48, 60]. The difference, position "
            "by position, is +5 points [+1, +9]. What may be said?"
        ),
        options=(
            "Nothing: the two intervals overlap",
            "The second is better by 5 points exactly",
            "Nothing, before both of the intervals exclude 50 %",
            "The second is better: this interval excludes 0",
        ),
        right=3,
        why=(
            "Hard documents are hard for both; in a difference that part cancels, so its interval is the one to read.",
            "By 1 to 9 points, if the interval holds.",
            "50 % plays no part in a comparison of two arms.",
            "Pairing removes what both arms share. Overlap of single intervals does not forbid a difference.",
        ),
    ),
    Question(
        lesson=10,
        name="Two of six",
        asks="Of 6 answers to a question 2 were right. Which estimate of pass@2 is right on average?",
        options=(
            "33 %",
            "56 %",
            "60 %",
            "67 %",
        ),
        right=2,
        why=(
            "That is pass@1: the share of right answers.",
            "1 - (4/6)^2 puts an answer back before the next is picked, and is too low on average.",
            "1 - C(4, 2) / C(6, 2) = 1 - 6/15: of 15 pairs, 6 hold wrong answers only.",
            "Twice pass@1 counts the pair of two right ones twice.",
        ),
    ),
    Question(
        lesson=10,
        name="A flat line",
        asks="After post-training pass@1 is 61 % and pass@4 is 61 % too, on yes-or-no questions. What is most likely?",
        options=(
            "The model knows 61 % of the answers for sure, and of the rest it knows nothing at all",
            "Post-training has made it reason, so that one try is enough",
            "The estimate of pass@4 is biased",
            "All its answers to a question are alike, perhaps the same for all questions",
        ),
        right=3,
        why=(
            "Possible, but on questions of two answers even guessing would lift pass@4 well above pass@1.",
            "A flat line says nothing about reasoning; look at what it answers.",
            "Not if it is picked without putting back; and bias would not make the two equal.",
            "Four tries that are always alike are one try. In the recorded run the model says Yes always.",
        ),
    ),
    Question(
        lesson=11,
        name="Before the first step",
        asks=(
            "A pre-flight on your text finds: accuracy 97 % in every tier, groups with a signal 4 %. What is "
            "to be changed first?"
        ),
        options=(
            "The text or thresholds: harder positions",
            "The cold start: more of it",
            "The learning rate: larger",
            "The length weight: larger",
        ),
        right=0,
        why=(
            "Groups agree because nearly all are right: for this model the text is too easy.",
            "That helps where thoughts never close, or the answer's form is missing; here answers are right.",
            "It multiplies a gradient that most groups do not have.",
            "That would give groups something to differ in, but it is not the answer.",
        ),
    ),
    Question(
        lesson=11,
        name="The quiet mistake",
        asks="Which model would run without an error if nobody checked, and give numbers that are far too good?",
        options=(
            "A folder without weights",
            "One whose weights hold a single number that is not finite",
            "An encoder such as BERT",
            "One with a tokenizer that has more tokens than the model",
        ),
        right=2,
        why=(
            "It fails at once, or begins from chance, and is then far too bad.",
            "It runs and is wrong in every number, but not too good.",
            "It sees the very token that it is to predict, and so is right nearly always. load_policy refuses it.",
            "It fails as soon as one of the tokens without a row is met; before that its numbers are as good as any.",
        ),
    ),
    Question(
        lesson=12,
        name="The last step of an epoch",
        asks=(
            "An epoch has 9 equal micro-batches, 4 to a step, and each step divides by 4. How large is the "
            "epoch's last step?"
        ),
        options=(
            "A quarter of what it should be",
            "Half of what it should be",
            "As it should be",
            "Twice what it should be",
        ),
        right=0,
        why=(
            "4 + 4 + 1: the last one holds a single micro-batch and is divided by 4.",
            "One of four parts is there, not two.",
            "Then it would be divided by the number of micro-batches that it holds, 1.",
            "It is divided by too much, not by too little.",
        ),
    ),
    Question(
        lesson=12,
        name="A check that passes",
        asks=(
            "A KL estimate has the wrong sign in its log-ratio. Its test takes log-ratios of +x and -x in "
            "equal number and asks for the right mean. Does it find the bug?"
        ),
        options=(
            "Yes: the mean of a wrong formula is wrong as well, always",
            "Yes, if there are enough of them",
            "No: turning all signs gives the same set of numbers",
            "No: an estimate is random, so no test can",
        ),
        right=2,
        why=(
            "exp(d) - d - 1, averaged over x and -x, is the same for d and for -d.",
            "More numbers, as symmetric as before, cannot see a sign either.",
            (
                "The check cannot fail. Take two distributions without that symmetry, and run it on the wrong"
                " version first."
            ),
            "Its mean under the policy can be summed up exactly, over a small vocabulary.",
        ),
    ),
)
