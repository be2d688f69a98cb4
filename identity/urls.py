"""Where the REST edge of identity is found, under `/api/v1/`."""

from django.urls import path

from identity.api import account, deriv_login, kyc, profile, views

urlpatterns = [
    path("auth/csrf", views.Csrf.as_view()),
    path("auth/register", views.Registrations.as_view()),
    path("auth/login", views.Login.as_view()),
    path("auth/refresh", views.Refresh.as_view()),
    path("auth/logout", views.Logout.as_view()),
    path("auth/logout-all", views.LogoutAll.as_view()),
    path("me", profile.Me.as_view()),
    path("me/kyc", kyc.Kyc.as_view()),
    path("auth/step-up", account.StepUp.as_view()),
    path("auth/password-reset", account.PasswordReset.as_view()),
    path("auth/password-reset/confirm", account.PasswordResetConfirmation.as_view()),
    path("me/password", account.Password.as_view()),
    path("me/phone", account.NewPhone.as_view()),
    path("me/phone/confirm", account.NewPhoneConfirmation.as_view()),
    path("me/email", account.NewEmail.as_view()),
    path("me/email/confirm", account.NewEmailConfirmation.as_view()),
    path("me/close", account.Close.as_view()),
    path("me/totp", account.Totp.as_view()),
    path("me/totp/confirm", account.TotpConfirmation.as_view()),
    path("me/devices", views.Devices.as_view()),
    path("me/devices/<str:id>", views.DeviceDetail.as_view()),
    path("me/phone-verification", views.PhoneVerification.as_view()),
    path("me/phone-verification/confirm", views.PhoneConfirmation.as_view()),
    path("me/email-verification", views.EmailVerification.as_view()),
    path("me/email-verification/confirm", views.EmailConfirmation.as_view()),
    path("me/deriv-login", deriv_login.DerivLogin.as_view()),
    path("me/deriv-login/authorize", deriv_login.DerivAuthorize.as_view()),
]
