# One image for Cloud Run and Knative. FUNCTION_TARGET says which function a container is; `service` answers every route.
#   docker build --build-arg CLOUD=google -t mqtt-trust .      (or CLOUD=aws, for Knative on DynamoDB, SQS and AWS KMS)
FROM python:3.13-slim

ARG CLOUD=google
WORKDIR /app
COPY requirements-${CLOUD}.txt ./requirements.txt
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY main.py ./
COPY functions ./functions
COPY shared ./shared
COPY console ./console
RUN python -m compileall -q .

ENV FUNCTION_TARGET=service \
    PORT=8080 \
    PYTHONUNBUFFERED=1 \
    TRUST_DATA=/tmp/trust
USER 65532:65532
EXPOSE 8080
CMD ["functions-framework"]
