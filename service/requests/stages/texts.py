"""The stages of texts: ids, queue, result."""

from model.errors import TextError
from model.texts.tokens import TextTokens
from service.engine.client import Job, JobClient, TextJob
from service.errors import ServiceError, from_model_error
from service.metrics import Metrics
from service.requests.documents.embedder import DocumentEmbedder, text_job
from service.requests.results import EmbeddedText, Outcome
from service.requests.stages.call import EmbedCall
from service.requests.stages.checks import check_embedding
from service.requests.steps import in_time
from service.requests.text_reader import TextReader


class TextStages:
    """Serves many calls at once."""

    def __init__(
        self,
        client: JobClient,
        text_reader: TextReader | None,
        metrics: Metrics,
        documents: DocumentEmbedder | None,
    ) -> None:
        """text_reader: None if the model takes no text. documents: None unless the model makes one vector of several
        inputs."""
        self._client, self._text_reader, self._metrics, self._documents = client, text_reader, metrics, documents

    async def read(self, call: EmbedCall) -> list[TextTokens | ServiceError]:
        """The ids of each text."""
        hold, parameters = call.hold, call.parameters
        if not hold.texts:
            return []
        assert self._text_reader is not None, "a text was let in that the model does not take"
        facts = self._client.model.text
        prompt = facts.prompt(parameters.task) if facts else ""
        reader, truncate = self._text_reader, parameters.truncate == "end"

        async def ids() -> list[TextTokens | TextError]:
            async with reader.turn(bulk=hold.bulk):
                return await reader.read(hold.texts, truncate=truncate, prompt=prompt)

        read: list[TextTokens | ServiceError] = []
        for index, text in enumerate(await in_time(ids(), call.deadline_s), start=len(hold.images)):
            if isinstance(text, TextError):
                read.append(call.on_failure(from_model_error(text, index=index)))
                continue
            self._metrics.truncated_texts.inc(text.truncated)
            read.append(text)
        return read

    async def embed(self, call: EmbedCall, text: TextTokens | ServiceError, tokenize_s: float) -> Outcome:
        """tokenize_s: how long `read` took."""
        if isinstance(text, ServiceError):
            return text
        facts, bulk = self._client.model.text, call.hold.bulk
        assert facts is not None, "a model without text was given ids"
        job: Job = TextJob(text.ids, facts.context, call.deadline_s, bulk=bulk)
        if self._documents is not None:
            job = text_job(text.ids, facts, call.deadline_s, bulk=bulk)
        result = await self._client.submit(job)
        self._metrics.observe_queue(result.queue_s, bulk=bulk)
        embedded = EmbeddedText(len(text.ids), text.truncated, result, tokenize_s)
        check_embedding(embedded, call.parameters)
        return embedded
