"""The bridge's contract: what an answer does not name as failed is in Kinesis, or a dead letter, or kept back."""

from tests.simulation.checkers.base import Checker, landed_identity
from tests.simulation.observations import Answered, Observation


class AnsweredIsDone(Checker):
    promise = "1: what the bridge answers for is done"

    def see(self, observation: Observation) -> None:
        if not isinstance(observation, Answered):
            return
        sent = {landed_identity(landed.data) for landed in observation.landed if landed.acknowledged}
        unsent = len(observation.records) if observation.unsent is None else observation.unsent
        for record in observation.records[:unsent]:
            table, label = record["eventSourceARN"].split("/")[1], record["eventSourceARN"].split("/")[3]
            generation = "".join(filter(str.isdigit, label))
            identity = (table, generation, int(record["dynamodb"]["SequenceNumber"]))
            parked = record["dynamodb"]["SequenceNumber"].zfill(40) in observation.letters
            if identity not in sent and identity not in self.model.kept_back and not parked:
                self.broken(f"{identity} was answered for, and is neither in Kinesis nor a dead letter")
        if observation.unsent is not None and observation.unsent >= len(observation.records):
            self.broken("an answer names what was not in the batch")
