{{- /* The container that fetches the model: once for a volume, whatever the number of pods that share it. A mark tells the
next that all of it is there, so a download that was cut short goes on, and the hub is not asked again. */}}
{{- define "packlight.fetch" -}}
- name: fetch-model
  image: {{ include "packlight.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  securityContext: {{- toYaml .Values.securityContext | nindent 4 }}
  command:
    - python
    - -c
    - |
      import hashlib, pathlib, sys
      model, revision = sys.argv[1], sys.argv[2] or None
      named = hashlib.sha256(f"{model}@{revision}".encode()).hexdigest()[:16]
      mark = pathlib.Path("/models/fetched", named)
      if not mark.exists():
          from model.checkpoint.hub import download
          from model.errors import CheckpointError
          try:
              print(f"fetched {model} into {download(model, revision=revision)}")
          except CheckpointError as error:
              sys.exit(f"packlight: {error}")
          mark.parent.mkdir(exist_ok=True)
          mark.touch()
    - {{ include "packlight.fetched" . | quote }}
    - {{ .Values.settings.revision | default "" | quote }}
  env:
    - {name: HF_HOME, value: /models}
    {{- with .Values.model.endpoint }}
    - {name: HF_ENDPOINT, value: {{ . | quote }}}
    {{- end }}
    {{- with .Values.model.tokenSecret }}
    - name: HF_TOKEN
      valueFrom: {secretKeyRef: {name: {{ . }}, key: token}}
    {{- end }}
  resources: {{- toYaml .Values.model.fetchResources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: models, mountPath: /models}
{{- end }}
