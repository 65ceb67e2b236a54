{{- define "packlight.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "packlight.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "packlight.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "packlight.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "packlight.selectorLabels" -}}
app.kubernetes.io/name: {{ include "packlight.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "packlight.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "packlight.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "packlight.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "packlight.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "packlight.image" -}}
{{- $tag := .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion .Values.image.variant) }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}

{{- /* A value as the environment wants it. Helm reads whole numbers as floats, and would write 33554432 as 3.3554432e+07. */}}
{{- define "packlight.text" -}}
{{- if kindIs "slice" . }}
{{- join "," . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) }}
{{- int64 . }}
{{- else }}
{{- . }}
{{- end }}
{{- end }}

{{- define "packlight.hasKeys" -}}
{{- if or .Values.auth.keys .Values.auth.existingSecret }}true{{ end }}
{{- end }}

{{- define "packlight.keysSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-keys" (include "packlight.fullname" .)) }}
{{- end }}

{{- define "packlight.hasBulkKeys" -}}
{{- if or .Values.auth.bulkKeys .Values.auth.existingBulkSecret }}true{{ end }}
{{- end }}

{{- define "packlight.bulkKeysSecret" -}}
{{- .Values.auth.existingBulkSecret | default (printf "%s-bulk-keys" (include "packlight.fullname" .)) }}
{{- end }}

{{- /* The hub id to fetch; empty for a folder, the bundled model and a baked one. */}}
{{- define "packlight.fetched" -}}
{{- $model := .Values.settings.model | default "" }}
{{- if eq .Values.model.cache "baked" }}
{{- if $model }}{{ fail "model.cache is baked: the image names the model, and settings.model has to stay out" }}{{ end }}
{{- else if regexMatch "^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$" $model }}
{{- $model }}
{{- end }}
{{- end }}

{{- /* The server's environment: the settings of the values, and what the chart knows better. */}}
{{- define "packlight.env" -}}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
- {name: PACKLIGHT_{{ upper $name }}, value: {{ include "packlight.text" $value | quote }}}
{{- end }}
{{- end }}
{{- if include "packlight.hasKeys" . }}
- {name: PACKLIGHT_API_KEYS_FILE, value: /etc/packlight/keys/keys}
{{- end }}
{{- if include "packlight.hasBulkKeys" . }}
- {name: PACKLIGHT_BULK_KEYS_FILE, value: /etc/packlight/bulk-keys/keys}
{{- end }}
{{- if not (dig "limits" "cpu" "" .Values.resources) }}
{{- /* Without a limit the server would count all cores of its node. */}}
{{- range $name := list "PACKLIGHT_DECODE_THREADS" "OMP_NUM_THREADS" }}
{{- if not (and (eq $name "PACKLIGHT_DECODE_THREADS") (hasKey $.Values.settings "decode_threads")) }}
- name: {{ $name }}
  valueFrom: {resourceFieldRef: {containerName: packlight, resource: requests.cpu}}
{{- end }}
{{- end }}
{{- end }}
{{- if include "packlight.fetched" . }}
- {name: HF_HOME, value: /models}
# The server never asks the hub: all pods hold what was fetched.
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Devices of one server, each with an engine of its own. */}}
{{- define "packlight.devices" -}}
{{- len (splitList "," (.Values.settings.devices | default "auto")) }}
{{- end }}

{{- /* drain_s for the requests, 5 s for the HTTP processes and 12 s for the engines after them, and 3 s to spare. */}}
{{- define "packlight.graceSeconds" -}}
{{- add .Values.preStopSeconds (ceil (.Values.settings.drain_s | default 30)) 20 }}
{{- end }}
