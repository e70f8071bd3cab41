"""Storage commitment (PS3.4 Annex J): a PACS asks whether objects are kept, and is told after they were read back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from phenotype.imaging import encoding

if TYPE_CHECKING:
    from phenotype.ingest.pacs.receiver import Receiver

NOT_HERE, PROCESSING_FAILURE = 0x0112, 0x0110
MOST = 100_000  # objects in one request


def commit_later(event: evt.Event, entity: AE, receiver: Receiver) -> tuple[int, None]:
    """Answer N-ACTION, and report on an association of its own: who asked has often gone by then."""
    peer = receiver.service.peers.get(str(event.assoc.requestor.ae_title).strip())
    try:
        with encoding.quiet():
            asked = event.action_information
            transaction = str(asked.TransactionUID)
            objects = [
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence[:MOST]
            ]
    except Exception:  # whatever a peer sends is parsed only here
        return PROCESSING_FAILURE, None
    if peer is None or event.action_type != 1:
        return PROCESSING_FAILURE, None
    arguments = (entity, receiver, peer, str(event.assoc.requestor.ae_title).strip(), transaction, objects)
    threading.Thread(target=_report, args=arguments, daemon=True).start()
    return 0x0000, None


def report_of(receiver: Receiver, transaction: str, objects: list[tuple[str, str]]) -> Dataset:
    """What is kept of `objects` (class and instance UID), and what is not."""
    with encoding.quiet():  # what a peer calls a UID may be none
        report = Dataset()
        report.TransactionUID = transaction
        kept, failed = [], []
        for sop_class, sop_uid in objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
            if receiver.holds(sop_uid):
                kept.append(item)
            else:
                item.FailureReason = NOT_HERE
                failed.append(item)
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        return report


def _report(
    entity: AE,
    receiver: Receiver,
    peer: tuple[str, int],
    peer_aet: str,
    transaction: str,
    objects: list[tuple[str, str]],
) -> None:
    report = report_of(receiver, transaction, objects)
    caller = AE(entity.ae_title)
    caller.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = caller.associate(*peer, ae_title=peer_aet, ext_neg=[role])
    if association.is_established:
        kind = 2 if "FailedSOPSequence" in report else 1
        association.send_n_event_report(report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        association.release()
