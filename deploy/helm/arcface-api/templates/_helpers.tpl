{{- define "arcface-api.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "arcface-api.fullname" -}}
{{- $name := include "arcface-api.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "arcface-api.selectorLabels" -}}
app.kubernetes.io/name: {{ include "arcface-api.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "arcface-api.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "arcface-api.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "arcface-api.image" -}}
{{- $variant := ne .Values.image.variant "" | ternary (printf "-%s" .Values.image.variant) "" }}
{{- printf "%s:%s" .Values.image.repository (default (printf "%s%s" .Chart.AppVersion $variant) .Values.image.tag) }}
{{- end }}

{{- /* Helm reads whole numbers of a values file as floats, and would write 134217728 as 1.34217728e+08. */ -}}
{{- define "arcface-api.settingsEnv" -}}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
- name: ARCFACE_{{ upper $name }}
  {{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}
  value: {{ int64 $value | quote }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "arcface-api.downloadsPack" -}}
{{- with .Values.pack }}
{{- if .acceptLicense }}
{{- if ne .acceptLicense .name }}
{{- fail (printf "pack.acceptLicense is %q, but the pack is %q: name the pack that you accept the licence of, or leave it empty." .acceptLicense .name) }}
{{- end }}
{{- if .inImage }}
{{- fail "pack.inImage=true says that your image contains the pack, and pack.acceptLicense has it downloaded: leave one of them out." }}
{{- end }}yes
{{- else if not (or (has .name (list "open" "auto")) .inImage $.Values.models.existingClaim) }}
{{- fail (printf "The image does not contain the pack %q. Accept the licence of its weights, to have them downloaded (pack.acceptLicense=%s; docs/licences.md of the project has the licences), or name a volume that has them (models.existingClaim), or say that your image contains them (pack.inImage=true). pack.name=open needs none of these." .name .name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "arcface-api.claimName" -}}
{{- if .Values.models.claim.enabled }}
{{- if .Values.models.existingClaim }}
{{- fail "models.existingClaim and models.claim.enabled exclude each other: leave one of them out." }}
{{- end }}
{{- include "arcface-api.fullname" . }}
{{- else }}
{{- .Values.models.existingClaim }}
{{- end }}
{{- end }}

{{- /* "yes" if the chart's own volume can be on one node at a time. */ -}}
{{- define "arcface-api.isOnOneNode" -}}
{{- with .Values.models.claim }}
{{- if and .enabled (not (has "ReadWriteMany" .accessModes)) }}
{{- if or $.Values.autoscaling.enabled (gt (int $.Values.replicaCount) 1) }}
{{- fail "models.claim.accessModes without ReadWriteMany is for one replica: pods on other nodes could not start. Use a storage class that has ReadWriteMany, or leave models.claim.enabled=false (each pod then has a volume of its own), or set replicaCount=1 and autoscaling.enabled=false." }}
{{- end }}yes
{{- end }}
{{- end }}
{{- end }}

{{- define "arcface-api.scheme" -}}
{{- with .Values.tls }}
{{- if and .clientCaKey (not .existingSecret) }}
{{- fail "tls.clientCaKey is a key of the Secret tls.existingSecret, which is not named: name it, or leave both out." }}
{{- end }}
{{- ternary "https" "http" (ne .existingSecret "") }}
{{- end }}
{{- end }}

{{- define "arcface-api.probe" -}}
path: {{ .path }}, port: 5555{{ if eq (include "arcface-api.scheme" .root) "https" }}, scheme: HTTPS{{ end }}
{{- end }}

{{- define "arcface-api.volumeMounts" -}}
- name: models
  mountPath: /models
  {{- if .Values.models.readOnly }}
  readOnly: true
  {{- end }}
- name: tmp
  mountPath: /tmp
{{- if .Values.tls.existingSecret }}
- name: tls
  mountPath: /tls
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
