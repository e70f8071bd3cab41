"""Is the verdict that a term is not seen at a place right? Six terms with a place and two of the whole lung, learned
together by the default mapper, and judged as `phenotype link` judges them."""

import numpy as np
from linking_measure import Finish, Images
from linking_phantoms import DIFFUSE, PROBABLE, TERMS, diffuse, reports
from sklearn.metrics import roc_auc_score

from phenotype.linking.evidence import image_score
from phenotype.linking.faithful import LARGEST, deletion, locality
from phenotype.linking.mapper import POSSIBLE, Bag
from phenotype.linking.mappers import DEFAULT, build

NOISES = ("clean", "sym20")


def measure(work, seeds, share=1.0):
    """A row for each noise, seed and term: the verdict, of the deletion tests how much of an image holds half of the
    evidence, and how well the image's score tells who has the term, with and without its highest fifth of regions."""
    rows = []
    for seed in seeds:
        seen = Images("radiographs", seed, work, share)
        judged = np.concatenate([seen.ph.of("validation"), seen.ph.of("test")])
        present = np.hstack([seen.present, diffuse(seed, share)])
        for noise in NOISES:
            said = reports(present, noise, seed)
            profiles, usual = _profiles(seen, said, judged, seed)
            rest = profiles.shape[1] - round(LARGEST * profiles.shape[1])
            scores = np.stack([image_score(profile) for profile in profiles])
            left = np.stack([image_score(np.sort(profile, axis=0)[:rest]) for profile in profiles])
            for t, term in enumerate((*TERMS["radiographs"], *DIFFUSE)):
                tests = _tests(profiles[:, :, t], usual[:, :, t], scores[:, t], said[judged, t] <= POSSIBLE)
                halves = [test.half for test in tests if np.isfinite(test.half)]
                found = {"verdict": locality(tests), "half": float(np.median(halves)) if halves else None}
                found |= {"auroc": roc_auc_score(present[judged, t], scores[:, t])}
                found |= {"auroc_left": roc_auc_score(present[judged, t], left[:, t])}
                rows.append({"noise": noise, "seed": seed, "term": term, "images": len(tests)} | found)
    return rows


def _profiles(seen, said, judged, seed):
    """The maps (images, regions, terms) of images not learned from, and those if nothing in them looked strange."""
    ph = seen.ph
    bags = [Bag(seen.regions[i], said[i], PROBABLE[said[i]], patient=int(ph.patient[i])) for i in ph.of("train")]
    mapper = build(DEFAULT, seed=seed, place=seen.axes).fit(bags)
    finish = Finish(seen, mapper, DEFAULT, said, np.random.default_rng([seed, 29]))
    profiles = [finish(i, mapper.score(seen.of(i, DEFAULT))) for i in judged]
    usual = [finish(i, mapper.score(seen.usual_looks(i, DEFAULT))) for i in judged]
    return np.stack(profiles), np.stack(usual)


def _tests(profiles, usual, scores, asserted):
    """The deletion tests of a term in images that assert it and score above half of the others: as
    `phenotype.linking.learning` chooses them."""
    chosen = np.flatnonzero(asserted & (scores > np.median(scores[~asserted])))
    return [deletion(image_score, profiles[i][:, None], usual[i][:, None])[0] for i in chosen]
