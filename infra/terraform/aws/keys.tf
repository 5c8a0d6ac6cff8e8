# The master key that seals private keys. Only the functions' roles grant its use.
resource "aws_kms_key" "master" {
  description             = "${var.name}: seals private keys"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.master.json
}

data "aws_iam_policy_document" "master" {
  statement {
    sid       = "RolesOfThisAccountMayBeGranted"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.here.partition}:iam::${local.account}:root"]
    }
  }
}

resource "aws_kms_alias" "master" {
  name          = "alias/${var.name}-master"
  target_key_id = aws_kms_key.master.key_id
}
