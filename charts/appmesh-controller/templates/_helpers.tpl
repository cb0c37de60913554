{{- define "appmesh-controller.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "appmesh-controller.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "appmesh-controller.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "appmesh-controller.selector" -}}
app.kubernetes.io/name: {{ include "appmesh-controller.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "appmesh-controller.labels" -}}
{{ include "appmesh-controller.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "appmesh-controller.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "appmesh-controller.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "appmesh-controller.webhookService" -}}
{{ include "appmesh-controller.fullname" . }}-webhook-service
{{- end }}

{{- define "appmesh-controller.xdsService" -}}
{{ include "appmesh-controller.fullname" . }}-xds
{{- end }}

{{- define "appmesh-controller.secret" -}}
{{ include "appmesh-controller.fullname" . }}-webhook-server-cert
{{- end }}

{{- define "appmesh-controller.image" -}}
{{- $repository := required (printf "%s.repository is missing: push the image and name it" .value) .image.repository }}
{{- printf "%s:%s" $repository (.image.tag | default .default) }}
{{- end }}
